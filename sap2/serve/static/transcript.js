// The transcript as data and as text on the page. A segment is {start, end, text, words, picked_keywords}; a word is
// {word, start, end, probability, keyword}.

const UNSURE = 0.6;

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours ? `${hours}:` : ""}${hours ? two(Math.floor(whole / 60) % 60) : Math.floor(whole / 60)}:${two(whole % 60)}`;
}

// Words spread over the segment, where the server told no times.
export function spread(text, start, end) {
  const found = text.split(/\s+/).filter(Boolean);
  const length = found.reduce((sum, word) => sum + word.length, 0) || 1;
  let place = start;
  return found.map((word) => {
    const from = place;
    place += ((end - start) * word.length) / length;
    return { word, start: from, end: place, probability: null, keyword: null };
  });
}

// The words of a text that was edited: those that stayed keep their times, new ones share what is between.
export function retime(text, segment) {
  const before = segment.words;
  const after = text.split(/\s+/).filter(Boolean);
  const same = longestCommon(before.map((word) => word.word), after);
  const words = after.map((word, index) => (same.has(index) ? { ...before[same.get(index)], word } : null));
  for (let first = 0; first < words.length; first += 1) {
    if (words[first]) continue;
    let last = first;
    while (last < words.length && !words[last]) last += 1;
    const start = first ? words[first - 1].end : segment.start;
    const end = last < words.length ? words[last].start : segment.end;
    spread(after.slice(first, last).join(" "), start, Math.max(start, end)).forEach((word, offset) => {
      words[first + offset] = word;
    });
    first = last;
  }
  return words;
}

function longestCommon(one, other) {
  const table = Array.from({ length: one.length + 1 }, () => new Uint16Array(other.length + 1));
  for (let i = one.length - 1; i >= 0; i -= 1)
    for (let j = other.length - 1; j >= 0; j -= 1)
      table[i][j] = one[i] === other[j] ? table[i + 1][j + 1] + 1 : Math.max(table[i + 1][j], table[i][j + 1]);
  const same = new Map();
  for (let i = 0, j = 0; i < one.length && j < other.length;) {
    if (one[i] === other[j]) { same.set(j, i); i += 1; j += 1; }
    else if (table[i + 1][j] >= table[i][j + 1]) i += 1;
    else j += 1;
  }
  return same;
}

export class Transcript {
  constructor(root) {
    this.root = root;
    this.clear();
  }

  clear() {
    this.segments = [];
    this.root.replaceChildren();
    this.current = null;
  }

  add(segment, words) {
    const timed = words?.length ? words : spread(segment.text, segment.start, segment.end);
    this.segments.push({ ...segment, words: timed });
    const row = this.row(this.segments.length - 1);
    this.root.append(row);
    return row;
  }

  row(number) {
    const segment = this.segments[number];
    const row = document.createElement("div");
    row.className = "segment";
    row.dataset.number = number;
    const time = document.createElement("time");
    time.textContent = clock(segment.start);
    const text = document.createElement("p");
    text.dir = "auto";
    this.fill(text, segment, number);
    row.append(time, text);
    return row;
  }

  fill(text, segment, number) {
    text.replaceChildren(...segment.words.flatMap((word, index) => {
      const span = document.createElement("span");
      span.className = "word";
      span.textContent = word.word;
      span.dataset.place = `${number}:${index}`;
      span.tabIndex = number === 0 && index === 0 ? 0 : -1;
      span.setAttribute("role", "button");
      const told = [`from ${clock(word.start)}`];
      if (word.keyword) { span.classList.add("keyword"); told.push(`on the slides: ${word.keyword}`); }
      if (word.probability !== null && word.probability !== undefined && word.probability < UNSURE) {
        span.classList.add("unsure");
        told.push(`${Math.round(100 * word.probability)} % sure`);
      }
      span.title = told.join(", ");
      return index ? [" ", span] : [span];
    }));
  }

  element(number, index) {
    return this.root.children[number]?.querySelectorAll(".word")[index] ?? null;
  }

  // The place of the last word that has begun at this time, or null.
  placeAt(seconds) {
    let low = 0;
    let high = this.segments.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.segments[middle].start <= seconds) low = middle + 1; else high = middle;
    }
    if (!low) return null;
    const { words, end } = this.segments[low - 1];
    if (seconds > end + 0.3) return null;
    let index = words.length - 1;
    while (index > 0 && words[index].start > seconds) index -= 1;
    return words.length ? [low - 1, index] : null;
  }

  highlight(seconds, follow) {
    const place = this.placeAt(seconds);
    const element = place && this.element(...place);
    if (element === this.current) return;
    this.current?.classList.remove("now");
    this.current = element;
    element?.classList.add("now");
    if (follow && element) element.scrollIntoView({ block: "nearest" });
  }

  wordOf(element) {
    const [number, index] = element.dataset.place.split(":").map(Number);
    return this.segments[number].words[index];
  }

  // The next word from an element, over the ends of segments.
  neighbour(element, step) {
    let [number, index] = element.dataset.place.split(":").map(Number);
    index += step;
    while (number >= 0 && number < this.segments.length && !this.segments[number].words[index]) {
      number += step;
      index = step > 0 ? 0 : (this.segments[number]?.words.length ?? 0) - 1;
    }
    return this.element(number, index);
  }

  edit(on) {
    for (const row of this.root.children) this.editRow(row, on);
  }

  editRow(row, on) {
    const text = row.querySelector("p");
    const segment = this.segments[row.dataset.number];
    if (on) {
      text.textContent = segment.text;
      text.contentEditable = "plaintext-only";
      text.setAttribute("role", "textbox");
      text.setAttribute("aria-label", `Text at ${clock(segment.start)}`);
      return;
    }
    const written = text.textContent.replace(/\s+/g, " ").trim();
    if (written !== segment.text) {
      segment.words = retime(written, segment);
      segment.text = written;
    }
    for (const name of ["contenteditable", "role", "aria-label"]) text.removeAttribute(name);
    this.fill(text, segment, Number(row.dataset.number));
  }

  // Whether a keyword is written somewhere, by its words' marks or by its letters.
  has(keyword) {
    const form = keyword.toLocaleLowerCase();
    return this.segments.some((segment) => segment.words.some((word) => word.keyword?.toLocaleLowerCase() === form)
      || ` ${segment.text.toLocaleLowerCase()} `.includes(` ${form} `));
  }

  get text() {
    return this.segments.map((segment) => segment.text).filter(Boolean).join("\n");
  }
}
