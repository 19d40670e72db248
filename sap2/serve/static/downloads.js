// The transcript, as it was edited, in files.

const LONGEST = 7; // seconds that a subtitle stands
const WIDEST = 84; // letters of a subtitle: two lines of 42

function stamp(seconds, separator) {
  const milliseconds = Math.round(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const whole = Math.floor(milliseconds / 1000);
  const rest = String(milliseconds % 1000).padStart(3, "0");
  return `${two(Math.floor(whole / 3600))}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${separator}${rest}`;
}

// Subtitles: whole words, not too long to read.
export function cues(segments) {
  const found = [];
  for (const { words } of segments) {
    let cue = null;
    for (const word of words) {
      const full = cue && (word.end - cue.start > LONGEST || cue.text.length + word.word.length + 1 > WIDEST);
      if (!cue || full) {
        cue = { start: word.start, end: word.end, text: word.word };
        found.push(cue);
      } else {
        cue.end = word.end;
        cue.text += ` ${word.word}`;
      }
    }
  }
  return found.map((cue) => ({ ...cue, text: twoLines(cue.text) }));
}

function twoLines(text) {
  if (text.length <= WIDEST / 2) return text;
  const words = text.split(" ");
  let first = "";
  while (words.length && (first.length + words[0].length + 1) * 2 <= text.length + words[0].length) first += `${first ? " " : ""}${words.shift()}`;
  return first && words.length ? `${first}\n${words.join(" ")}` : text;
}

const escapeVtt = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("-->", "--&gt;");

export function format(name, transcript) {
  const { segments } = transcript;
  if (name === "txt") return `${transcript.text}\n`;
  if (name === "srt")
    return cues(segments).map((cue, index) =>
      `${index + 1}\n${stamp(cue.start, ",")} --> ${stamp(cue.end, ",")}\n${cue.text}\n`).join("\n");
  if (name === "vtt")
    return `WEBVTT\n\n${cues(segments).map((cue) =>
      `${stamp(cue.start, ".")} --> ${stamp(cue.end, ".")}\n${escapeVtt(cue.text)}\n`).join("\n")}`;
  return `${JSON.stringify({ text: segments.map((segment) => segment.text).filter(Boolean).join(" "), segments }, null, 1)}\n`;
}

export function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
