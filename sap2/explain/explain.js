const NUMBER = 0, TEXT = 1, START = 2, END = 3, LOG_PROB = 4, KEYWORD = 5, LOOKED = 6, LOOKED_AT = 7, WITHOUT = 8, MAPS = 9;  // fields of a word
const KW_TEXT = 0, TOLD = 1, WRITTEN = 2, RANK = 3, PROBABILITY = 4, SALIENCE = 5, POOLED = 6;  // fields of a keyword
const PARTS = ["the speech", "the keywords", "the rest of the prompt", "the words before"];
const TOKEN_SECONDS = D.token_seconds, SHOWN_KEYWORDS = 60, CLEAR = Math.log(2);  // a keyword that at least doubles a word's probability
const dark = matchMedia("(prefers-color-scheme: dark)");
let chosen = null;

const percent = p => p >= 0.9995 ? "100 %" : p >= 0.0995 && p < 0.995 ? (100 * p).toFixed(0) + " %" : p >= 0.00095 ? (100 * p).toFixed(1) + " %" : "below 0.1 %";
const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const map = packed => { const scale = packed[0] / 127; return Array.from(new Int8Array(bytes(packed[1]).buffer), v => v * scale); };
const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function wordButton(segment, word) {
  const button = el("button", word[TEXT], "word" + (word[KEYWORD] ? " kw" : "") + (word[LOG_PROB] < Math.log(0.5) ? " unsure" : ""));
  button.dataset.number = word[NUMBER];
  button.setAttribute("aria-pressed", "false");
  button.onclick = () => choose(segment, word);
  return button;
}
function drawTranscript() {
  for (const segment of D.segments) {
    const line = el("p", null, "", el("span", clock(segment.start), "time"));
    if (!segment.words.length) line.append(el("span", segment.text, "dim"));
    for (const word of segment.words) line.append(wordButton(segment, word), " ");
    $("transcript").append(line);
  }
}

/* The spectrogram, and over it the regions that the word lost by when they were silenced. */
function canvas(width, height, shown) {
  const node = el("canvas");
  node.width = width;
  node.height = height;
  node.style.height = shown + "px";
  return node;
}
function drawSpectrogram(segment, word) {
  const {columns, rows} = segment, pixels = bytes(segment.spectrogram), node = canvas(columns, rows, 170);
  const picture = node.getContext("2d"), image = picture.createImageData(columns, rows);
  const regions = map(word[MAPS].silenced), tokens = segment.tokens, bands = regions.length / tokens;
  const most = Math.max(...regions, 1e-9);
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) {
    const band = Math.floor((rows - 1 - y) * bands / rows), token = Math.min(tokens - 1, Math.floor(x * segment.column_tokens));
    const heat = Math.max(0, regions[band * tokens + token]) / most, level = pixels[(rows - 1 - y) * columns + x];
    const grey = dark.matches ? level * 0.75 : 255 - level, at = 4 * (y * columns + x), mix = heat * 0.85;
    image.data.set([grey * (1 - mix) + 235 * mix, grey * (1 - mix) + 95 * mix, grey * (1 - mix) + 20 * mix, 255], at);
  }
  picture.putImageData(image, 0, 0);
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", `spectrogram of ${clock(segment.start)} to ${clock(segment.end)}; it rests most on ${clock(segment.start + peak(word[MAPS].silenced, tokens) * TOKEN_SECONDS)}`);
  return node;
}
function peak(packed, tokens) {
  const values = map(packed), sums = Array.from({length: tokens}, (_, t) => { let sum = 0; for (let i = t; i < values.length; i += tokens) sum += values[i]; return sum; });
  return sums.indexOf(Math.max(...sums));
}
function drawCurve(values, tone) {
  const node = canvas(values.length * 4, 44, 44), picture = node.getContext("2d");
  const high = Math.max(...values, 1e-9), low = Math.min(...values, 0), at = v => 43 - 42 * (v - low) / (high - low);
  picture.fillStyle = tone;
  values.forEach((value, token) => { const y = at(value), zero = at(0); picture.fillRect(token * 4, Math.min(y, zero), 3, Math.max(1, Math.abs(y - zero))); });
  node.setAttribute("aria-hidden", "true");
  return node;
}
function drawLabels(segment) {
  const box = el("div", null, "");
  box.id = "labels";
  const long = segment.tokens * TOKEN_SECONDS;
  for (const word of segment.words) {
    const button = wordButton(segment, word), share = s => 100 * (s - segment.start) / long;
    button.style.left = share(word[START]) + "%";
    button.style.width = Math.max(1, share(word[END]) - share(word[START])) + "%";
    button.tabIndex = -1;  // the same words are in the transcript, for the keyboard
    box.append(button);
  }
  return box;
}
function drawAxis(segment) {
  const box = el("div");
  box.id = "axis";
  const long = segment.tokens * TOKEN_SECONDS, step = long > 12 ? 2 : long > 5 ? 1 : 0.5;
  for (let s = 0; s <= long; s += step) {
    const mark = el("span", clock(segment.start + s));
    mark.style.left = 100 * s / long + "%";
    box.append(mark);
  }
  return box;
}
function drawSound(segment, word) {
  const stage = $("stage"), name = text => el("div", text, "name");
  stage.style.minWidth = segment.tokens * 5 + "px";
  const silenced = map(word[MAPS].silenced), sums = Array.from({length: segment.tokens}, (_, t) => silenced.reduce((sum, v, i) => i % segment.tokens === t ? sum + v : sum, 0));
  stage.replaceChildren(drawLabels(segment), drawSpectrogram(segment, word), drawAxis(segment),
    name("silenced: what the word loses when the sound there is taken away"), drawCurve(sums, "#e25f14"));
  if (word[MAPS].gradients) stage.append(name("gradients: what the sound there adds to the word"), drawCurve(map(word[MAPS].gradients), color("--good")));
  stage.append(name("attention: how much the language model looks there"), drawCurve(map(word[MAPS].attention), "#2f6fbd"));
  $("soundnote").textContent = "Orange: the places of the sound that the word needs. Attention shows where the model looks, which need not be what it uses."
    + (segment.timed ? "" : " The words stand where the model looks most when it writes them: they have no times.");
}
function drawLooked(word) {
  const stack = el("div", null, "stack"), keys = el("div", null, "keys");
  word[LOOKED].forEach((share, index) => {
    const part = el("div", null, "k" + index);
    part.style.width = 100 * share + "%";
    stack.append(part);
    keys.append(el("span", null, "", el("i", null, "k" + index), `${PARTS[index]} ${percent(share)}`));
  });
  stack.setAttribute("aria-hidden", "true");
  $("looked").replaceChildren(stack, keys);
}
function drawList(segment, word) {
  const list = segment.keywords, told = list.filter(k => k[TOLD]), any = column => list.some(k => k[column] !== null);
  $("list").hidden = !list.length;
  $("listtitle").hidden = !list.length;
  $("listnote").textContent = !list.length ? "No keywords were given." :
    `Stage two was told ${told.length} of ${list.length} keywords. With these, “${word[TEXT]}” has ${percent(Math.exp(word[LOG_PROB]))}; the table says what it has without one of them.`;
  const without = k => word[WITHOUT][told.indexOf(k)], likelihood = p => percent(Math.exp(p)), ofTold = value => k => k[TOLD] ? value(k) : "";
  const columns = [{title: "Keyword", cell: k => k[KW_TEXT], tone: () => "text keyword"}, {title: "Told", cell: k => k[TOLD] ? "yes" : "no"},
    {title: "Written", cell: k => k[WRITTEN] ? "yes" : ""},
    {title: "The word without it", cell: ofTold(k => likelihood(without(k))), tone: k => k[TOLD] && word[LOG_PROB] - without(k) > CLEAR ? "good more" : ""},
    {title: "Looked at for the word", cell: ofTold(k => percent(word[LOOKED_AT][told.indexOf(k)]))}];
  const known = (column, title, show) => { if (any(column)) columns.push({title, cell: k => k[column] === null ? "" : show(k[column])}); };
  known(RANK, "Rank in stage one", String);
  known(PROBABILITY, "Probability in stage one", percent);
  known(SALIENCE, "Heard by the spotter (nats)", value => num(value, 1));
  known(POOLED, "Looked at by the pooling", percent);
  const head = el("tr", null, "", ...columns.map((column, index) => el("th", column.title, index ? "" : "text")));
  const body = el("tbody", null, "", ...list.slice(0, Math.max(told.length, SHOWN_KEYWORDS)).map(k => el("tr", null, k[TOLD] ? "" : "out",
    ...columns.map(column => el("td", column.cell(k), column.tone ? column.tone(k) : "")))));
  const rest = list.length - body.childElementCount;
  const more = rest > 0 ? [el("p", `and ${rest} more, which stage two was not told`, "small dim more")] : [];
  $("list").replaceChildren(el("table", null, "plain", el("thead", null, "", head), body), ...more);
}
function verdict(segment, word) {
  const told = segment.keywords.filter(k => k[TOLD]), parts = [`The model gives it ${percent(Math.exp(word[LOG_PROB]))}.`];
  const effects = told.map((k, index) => [word[LOG_PROB] - word[WITHOUT][index], k[KW_TEXT], word[WITHOUT][index]]).sort((a, b) => b[0] - a[0]);
  if (effects.length && effects[0][0] > 0.1) parts.push(`Without “${effects[0][1]}” in the list it would be ${percent(Math.exp(effects[0][2]))}.`);
  else if (effects.length) parts.push("No single keyword of the list makes it much likelier.");
  return parts.join(" ");
}

function choose(segment, word, focus = false) {
  chosen = [segment, word];
  $("word").textContent = `${word[NUMBER]}. “${word[TEXT]}”`;
  $("verdict").textContent = verdict(segment, word);
  drawSound(segment, word);
  drawLooked(word);
  drawList(segment, word);
  for (const button of document.querySelectorAll("button.word")) button.setAttribute("aria-pressed", String(Number(button.dataset.number) === word[NUMBER]));
  if (focus) document.querySelector(`#transcript [data-number="${word[NUMBER]}"]`).focus();
  history.replaceState(null, "", `#word=${word[NUMBER]}`);
}
const every = D.segments.flatMap(segment => segment.words.map(word => [segment, word]));
$("transcript").onkeydown = event => {
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1}[event.key];
  if (!step) return;
  event.preventDefault();
  const at = every.findIndex(([, word]) => word === chosen[1]), next = every[Math.min(every.length - 1, Math.max(0, at + step))];
  choose(next[0], next[1], true);
};
$("title").textContent = D.title;
$("about").textContent = D.about;
drawTranscript();
const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("word"));
choose(...(every.find(([, word]) => word[NUMBER] === wanted) || every.find(([, word]) => word[KEYWORD]) || every[0]));
dark.onchange = () => choose(...chosen);
