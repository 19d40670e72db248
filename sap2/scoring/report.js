const PAGE = 50, MAX_COLUMNS = 1500;
const ID = 0, SESSION = 1, REF = 2, BIASED = 3, LISTED = 4, BIASED_WORDS = 5, SYSTEMS = 6, LIST = 7, AUDIO = 8;  // fields of an utterance
const HYP = 0, HYP_LISTED = 1, OPERATIONS = 2, ERRORS = 3, BIASED_ERRORS = 4, PICKED = 5, UNSURE = 6;  // fields of a system's part of it
const MATCH = "0", SUBSTITUTION = "1", INSERTION = "2", DELETION = "3";
const WER_KINDS = ["wer", "u_wer", "b_wer"];
const BLANK = "\u00a0";  // keeps the height of an empty slot
const several = D.names.length > 1;
const words = text => text ? text.split(" ") : [];

/* A table whose columns {title, key(row), cell(row)} sort on click. */
function sortable(table, columns, state, redraw) {
  const row = el("tr");
  columns.forEach((column, index) => {
    const button = el("button", column.title);
    button.onclick = () => {
      Object.assign(state, {by: index, down: state.by === index ? !state.down : !column.text});
      redraw();
    };
    const head = el("th", null, column.text ? "text" : "", button);
    if (state.by === index) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    row.append(head);
  });
  table.replaceChildren(el("thead", null, "", row));
}
function sorted(rows, columns, state) {
  if (state.by === null) return rows;
  const key = columns[state.by].key, sign = state.down ? -1 : 1;
  return rows.map(row => [key(row), row]).sort(([a], [b]) =>
    a === null || b === null ? (a === null) - (b === null) : (a < b ? -1 : a > b ? 1 : 0) * sign).map(pair => pair[1]);
}

function bigCell(main, ...details) {
  return el("td", null, "", el("b", main), ...details.map(detail => el("div", detail, "small dim")));
}
function drawSummary() {
  const head = el("tr", null, "", el("th", "System", "text"));
  for (const figure in D.figures) head.append(el("th", D.figures[figure] + " %"));
  const body = el("tbody");
  D.systems.forEach((system, index) => {
    const row = el("tr", null, "", el("td", null, "text", el("b", D.names[index])));
    for (const kind of WER_KINDS) row.append(bigCell(num(system[kind].error_rate), `${system[kind].ref_words} words`,
      `sub ${system[kind].subs}, ins ${system[kind].ins}, del ${system[kind].dels}`));
    const k = system.keywords;
    row.append(bigCell(num(k.recall), `tp ${k.tp}`, `fn ${k.fn}`), bigCell(num(k.precision), `fp ${k.fp}`, `tn ${k.tn}`), bigCell(num(k.f1)));
    body.append(row);
  });
  $("summary").append(el("table", null, "plain", el("thead", null, "", head), body));
}
const interval = f => f.low === null ? "n/a" : `${signed(f.low)} to ${signed(f.high)}`;
function drawComparisons() {
  for (const c of D.comparisons) {
    const titles = ["Figure", c.base, c.system, "Change", "Relative", "95 % interval", "p"];
    if (c.whole_sessions) titles.push("interval, whole sessions", "p");
    const body = el("tbody");
    for (const figure in D.figures) {
      const f = c.figures[figure], sure = f.low !== null && (f.low > 0 || f.high < 0);
      const tone = !sure ? "" : (f.difference < 0) === WER_KINDS.includes(figure) ? "good" : "bad";
      const relative = f.relative === null ? "n/a" : signed(f.relative, 1) + " %";
      const row = el("tr", null, "", el("td", D.figures[figure], "text"), el("td", num(f.base)), el("td", num(f.system)),
        el("td", signed(f.difference), tone), el("td", relative, tone), el("td", interval(f)), el("td", num(f.p, 4)));
      if (c.whole_sessions) row.append(el("td", interval(c.whole_sessions[figure])), el("td", num(c.whole_sessions[figure].p, 4)));
      body.append(row);
    }
    const head = el("tr", null, "", ...titles.map((title, i) => el("th", title, i ? "" : "text")));
    $("comparisons").append(el("h2", `${c.system} against ${c.base}`),
      el("div", null, "scroll", el("table", null, "plain", el("thead", null, "", head), body)),
      el("div", `Paired bootstrap over utterances, ${D.bootstrap.draws} draws, seed ${D.bootstrap.seed}; coloured where the interval leaves out zero.`, "small dim"));
  }
}
function drawSessions() {
  if (!D.sessions.length) return;
  const columns = [{title: "Session", text: true, key: s => s[0]}];
  const size = new Map();
  for (const u of D.utterances) size.set(u[SESSION], (size.get(u[SESSION]) || 0) + 1);
  columns.push({title: "Utterances", digits: 0, key: s => size.get(s[0]) || 0}, {title: "Words", digits: 0, key: s => s[1][0].wer.ref_words});
  const figures = [...WER_KINDS.map(k => [D.figures[k], s => s[k].error_rate]), ["recall", s => s.keywords.recall]];
  D.names.forEach((name, i) => figures.forEach(([title, value]) => columns.push({title: several ? `${name} ${title}` : title, key: s => value(s[1][i])})));
  const change = i => s => s[1][i].wer.error_rate === null ? null : s[1][i].wer.error_rate - s[1][0].wer.error_rate;
  D.names.slice(1).forEach((name, i) => columns.push({title: `${name} WER change`, signed: true, key: change(i + 1)}));
  const table = el("table", null, "plain"), state = {by: null, down: false};
  const draw = () => {
    sortable(table, columns, state, draw);
    const body = el("tbody");
    for (const s of sorted(D.sessions, columns, state))
      body.append(el("tr", null, "", ...columns.map((c, i) => el("td", !i ? s[0] : c.signed ? signed(c.key(s)) : num(c.key(s), c.digits), i ? "" : "text"))));
    table.append(body);
  };
  draw();
  const details = el("details", null, "", el("summary", `${D.sessions.length} sessions`), el("div", null, "scroll", table));
  details.open = D.sessions.length <= 12;
  $("sessions").append(el("h2", "Sessions"), details);
}

/* What is missed and what is taken for what, over all utterances. */
function* pairs(u, i) {  // [index of the reference word, operation, word of the system or null]
  const hyp = words(u[SYSTEMS][i][HYP]);
  let r = 0, h = 0;
  for (const op of u[SYSTEMS][i][OPERATIONS]) {
    if (op === INSERTION) h++;
    else yield [r++, op, op === DELETION ? null : hyp[h++]];
  }
}
function wordTable(title, heads, rows) {
  const body = el("tbody", null, "", ...rows.slice(0, 20).map(cells => el("tr", null, "", ...cells.map((c, i) => el("td", String(c), i && typeof c === "number" ? "" : "text")))));
  if (!rows.length) body.append(el("tr", null, "", el("td", "none", "text dim")));
  const head = el("tr", null, "", ...heads.map((h, i) => el("th", h, typeof (rows[0] || [])[i] === "number" ? "" : "text")));
  return el("div", null, "", el("h2", title), el("div", null, "scroll", el("table", null, "plain", el("thead", null, "", head), body)));
}
function drawWords() {
  const target = view.target, said = new Map(), missed = new Map(), before = new Map(), confused = new Map();
  const more = (map, key) => map.set(key, (map.get(key) || 0) + 1);
  for (const u of D.utterances) {
    const ref = words(u[REF]), first = [...pairs(u, 0)];
    for (const [r, op, hyp] of pairs(u, target)) {
      if (op === SUBSTITUTION) more(confused, ref[r].toLowerCase() + "\t" + hyp.toLowerCase());
      if (u[BIASED][r] !== "1") continue;
      const word = ref[r].toLowerCase();
      more(said, word);
      if (op !== MATCH) more(missed, word);
      if (first[r][1] !== MATCH) more(before, word);
    }
  }
  const by = map => [...map].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  const name = D.names[target], other = several && target ? [D.names[0] + " missed"] : [];
  $("words").replaceChildren(el("div", null, "tables",
    wordTable(`Keywords that ${name} misses most`, ["Keyword", "Said", "Missed", ...other],
      by(missed).map(([word, n]) => [word, said.get(word), n, ...(other.length ? [before.get(word) || 0] : [])])),
    wordTable(`What ${name} takes for what`, ["Said", "Written", "Times"], by(confused).map(([pair, n]) => [...pair.split("\t"), n]))));
}

/* The alignment as slots: for each reference word, what every system wrote for it, and between them the insertions. */
function slots(u) {
  const n = words(u[REF]).length;
  const columns = u[SYSTEMS].map(s => {
    const hyp = words(s[HYP]), paired = [], gaps = Array.from({length: n + 1}, () => []);
    let i = 0, j = 0;
    for (const op of s[OPERATIONS]) {
      if (op === INSERTION) gaps[i].push(j++);
      else paired[i++] = op === DELETION ? {op, j: null} : {op, j: j++};
    }
    return {hyp, listed: s[HYP_LISTED], unsure: s[UNSURE], paired, gaps};
  });
  return {n, columns};
}
function cell(system, j, op, repaired) {
  const wrong = op !== MATCH, text = j === null ? "·" : system.hyp[j];
  const keyword = j !== null && system.listed[j] === "1";
  const node = el("span", text, (wrong ? "err" : repaired ? "fix" : "") + (keyword ? " kw" : ""));
  const told = wrong ? [{[SUBSTITUTION]: "substitution", [INSERTION]: "insertion", [DELETION]: "deletion"}[op]] : [];
  if (j !== null && system.unsure && system.unsure[j] === "1") { node.classList.add("unsure"); told.push("the system was not sure"); }
  node.title = told.join(", ");
  return node;
}
function drawAlignment(u) {
  const ref = words(u[REF]), {n, columns} = slots(u), box = el("div", null, "align");
  const names = el("div", null, "col names", el("span", "reference"), ...D.names.map(name => el("span", name)));
  for (let i = 0; i <= n && box.childElementCount < MAX_COLUMNS; i++) {
    const extra = Math.min(MAX_COLUMNS, Math.max(...columns.map(c => c.gaps[i].length)));
    for (let k = 0; k < extra; k++)
      box.append(el("div", null, "col", el("span", BLANK), ...columns.map(c => k < c.gaps[i].length ? cell(c, c.gaps[i][k], INSERTION, false) : el("span", BLANK))));
    if (i === n) break;
    const first = columns[0].paired[i].op;
    box.append(el("div", null, "col", el("span", ref[i], u[LISTED][i] === "1" ? "kw" : ""),
      ...columns.map((c, index) => cell(c, c.paired[i].j, c.paired[i].op, index > 0 && first !== MATCH))));
  }
  if (box.childElementCount >= MAX_COLUMNS) box.append(el("span", "… too long to show in full", "dim"));
  return el("div", null, "", el("div", null, "pair", names, box), ...drawKeywords(u), ...drawAudio(u));
}
function drawKeywords(u) {  // the list, and what stage one picked of it
  const list = D.lists[u[LIST]], picks = u[SYSTEMS].map((s, i) => [D.names[i], s[PICKED]]).filter(([, picked]) => picked);
  if (!list.length && !picks.length) return [];
  const said = picks.map(([name, picked]) => `${several ? name + " " : ""}picked ${picked.length ? picked.join(", ") : "none"}`);
  const picked = new Set(picks.flatMap(([, words]) => words.map(word => word.toLowerCase())));
  const items = list.map(keyword => el("li", keyword, picked.has(keyword.toLowerCase()) ? "picked" : ""));
  return [el("details", null, "fold small", el("summary", [`list of ${list.length}`, ...said].join("; ")), el("ul", null, "", ...items))];
}
function drawAudio(u) {
  if (!u[AUDIO]) return [];
  const player = document.createElement("audio");
  player.controls = true;
  player.preload = "none";
  player.src = u[AUDIO];
  return [player];
}

const knowsSure = D.utterances.some(u => u[SYSTEMS].some(s => s[UNSURE] !== null));
for (const node of document.querySelectorAll(".ifsure")) node.hidden = !knowsSure;
$("sure").onchange = event => document.body.classList.toggle("showunsure", event.target.checked);

const view = {filter: "all", target: D.names.length - 1, session: null, search: "", page: 0, sort: {by: null, down: false}};
const change = u => u[SYSTEMS][view.target][ERRORS] - u[SYSTEMS][0][ERRORS];
const FILTERS = [["all", "All", () => true],
  ...(several ? [["helped", "Helped", u => change(u) < 0], ["hurt", "Hurt", u => change(u) > 0],
    ["lost", "Lost a keyword", lostKeyword]] : []),
  ["listed", "In list but wrong", listedWrong],
  ["wrong", "With errors", u => u[SYSTEMS][view.target][ERRORS] > 0]];
function listedWrong(u) {  // a biased word of the reference is not in the hypothesis where it should be
  let i = 0;
  for (const op of u[SYSTEMS][view.target][OPERATIONS]) {
    if (op === INSERTION) continue;
    if (op !== MATCH && u[BIASED][i] === "1") return true;
    i++;
  }
  return false;
}
function lostKeyword(u) {  // the first system has a keyword that this one lacks
  const first = [...pairs(u, 0)];
  for (const [r, op] of pairs(u, view.target)) if (u[BIASED][r] === "1" && op !== MATCH && first[r][1] === MATCH) return true;
  return false;
}
const refWords = u => u[BIASED].length;
const rate = (u, i) => refWords(u) ? 100 * u[SYSTEMS][i][ERRORS] / refWords(u) : null;
const columns = [{title: "Utterance", text: true, key: u => u[ID], cell: u => { const c = el("td", u[ID], "text id"); c.title = u[ID]; return c; }}];
if (D.sessions.length) columns.push({title: "Session", text: true, key: u => u[SESSION], cell: u => el("td", u[SESSION], "text")});
columns.push({title: "Words", key: refWords}, {title: "Keywords", key: u => u[BIASED_WORDS]});
D.names.forEach((name, i) => {
  const label = several ? name + " " : "";
  columns.push({title: label + "errors", key: u => u[SYSTEMS][i][ERRORS]}, {title: label + "keyword err.", key: u => u[SYSTEMS][i][BIASED_ERRORS]},
    {title: label + "WER", key: u => rate(u, i), cell: u => el("td", num(rate(u, i), 1))});
});
if (several) columns.push({title: "Change", key: change, cell: u => el("td", signed(change(u), 0), change(u) < 0 ? "good" : change(u) > 0 ? "bad" : "dim")});

function chosen() {
  const needle = view.search.toLowerCase();
  return D.utterances.filter(u => (view.session === null || u[SESSION] === view.session) &&
    (!needle || [u[ID], u[REF], ...u[SYSTEMS].map(s => s[HYP])].some(text => text.toLowerCase().includes(needle))));
}
function drawList() {
  const pool = chosen();
  const test = FILTERS.find(f => f[0] === view.filter)[2];
  $("filters").replaceChildren(...FILTERS.map(([name, title, keep]) => {
    const button = el("button", `${title} (${pool.filter(keep).length})`);
    button.setAttribute("aria-pressed", name === view.filter);
    button.onclick = () => { view.filter = name; view.page = 0; drawList(); };
    return button;
  }));
  const rows = sorted(pool.filter(test), columns, view.sort), pages = Math.max(1, Math.ceil(rows.length / PAGE));
  view.page = Math.min(view.page, pages - 1);
  const table = $("list"), from = view.page * PAGE;
  sortable(table, columns, view.sort, () => { view.page = 0; drawList(); });
  for (const u of rows.slice(from, from + PAGE)) {
    const full = el("td", null, "words", drawAlignment(u));
    full.colSpan = columns.length;
    const cells = columns.map(c => { const node = c.cell ? c.cell(u) : el("td", String(c.key(u))); if (!c.text) node.dataset.title = c.title; return node; });
    table.append(el("tbody", null, "", el("tr", null, "", ...cells), el("tr", null, "", full)));
  }
  if (!rows.length) table.append(el("tbody", null, "", el("tr", null, "", el("td", "No utterance matches.", "text dim"))));
  $("where").textContent = rows.length ? `${from + 1} to ${Math.min(from + PAGE, rows.length)} of ${rows.length}` : "";
  $("prev").disabled = view.page === 0;
  $("next").disabled = view.page >= pages - 1;
  remember();
}

/* The view is in the address, so that it can be sent to somebody. */
function remember() {
  const now = {filter: view.filter, target: view.target, session: view.session ?? "", search: view.search, page: view.page,
    by: view.sort.by ?? "", down: view.sort.down ? 1 : ""};
  const usual = {filter: "all", target: D.names.length - 1, session: "", search: "", page: 0, by: "", down: ""};
  const parts = new URLSearchParams(Object.entries(now).filter(([key, value]) => String(value) !== String(usual[key])));
  history.replaceState(null, "", "#" + parts);
}
function recall() {
  const given = new URLSearchParams(location.hash.slice(1)), number = (name, end) => Math.min(Math.max(0, Math.floor(Number(given.get(name))) || 0), end);
  if (FILTERS.some(f => f[0] === given.get("filter"))) view.filter = given.get("filter");
  if (given.has("target")) view.target = number("target", D.names.length - 1);
  if (D.sessions.some(s => s[0] === given.get("session"))) view.session = given.get("session");
  view.search = given.get("search") || "";
  view.page = number("page", D.utterances.length);
  if (given.get("by")) view.sort = {by: number("by", columns.length - 1), down: given.get("down") === "1"};
}
function save() {
  const test = FILTERS.find(f => f[0] === view.filter)[2];
  const rows = sorted(chosen().filter(test), columns, view.sort);
  const heads = ["id", "session", "reference", ...D.names, ...D.names.map(name => name + " errors"), "keywords"];
  const lines = rows.map(u => [u[ID], u[SESSION], u[REF], ...u[SYSTEMS].map(s => s[HYP]), ...u[SYSTEMS].map(s => s[ERRORS]), D.lists[u[LIST]].join(", ")]);
  const text = [heads, ...lines].map(line => line.map(cell => String(cell).replace(/[\t\n\r]/g, " ")).join("\t")).join("\n") + "\n";
  const link = el("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/tab-separated-values"}));
  link.download = "utterances.tsv";
  link.click();
  URL.revokeObjectURL(link.href);
}
function choices(select, options, set) {
  for (const [value, title] of options) { const option = el("option", title); option.value = value; select.append(option); }
  select.onchange = () => { set(select.value); view.page = 0; drawList(); };
  select.hidden = options.length < 2;
}
function start() {
  $("title").textContent = D.title;
  $("about").textContent = `${D.about} · ${D.made}`;
  for (const [name, path, model] of D.files) $("files").append(el("div", `${name}: ${path}${model ? ` (${model})` : ""}`));
  for (const kind of ["problems", "notes"]) {
    for (const remark of D[kind]) $(kind).append(el("li", remark));
    $(kind).hidden = !D[kind].length;
  }
  recall();
  $("legendfix").hidden = !several;
  drawSummary(); drawComparisons(); drawSessions();
  choices($("target"), D.names.map((name, i) => [i, `${name} against ${D.names[0]}`]).slice(1), value => { view.target = Number(value); drawWords(); });
  $("target").value = view.target;
  choices($("session"), [["", "All sessions"], ...D.sessions.map((s, i) => [i, s[0]])], value => { view.session = value === "" ? null : D.sessions[value][0]; });
  $("session").value = view.session === null ? "" : D.sessions.findIndex(s => s[0] === view.session);
  $("search").value = view.search;
  $("export").onclick = save;
  drawWords();
  let timer;
  $("search").oninput = () => { clearTimeout(timer); timer = setTimeout(() => { view.search = $("search").value.trim(); view.page = 0; drawList(); }, 150); };
  const turn = step => () => { view.page += step; drawList(); $("list").scrollIntoView(); };
  $("prev").onclick = turn(-1);
  $("next").onclick = turn(1);
  drawList();
}
start();
