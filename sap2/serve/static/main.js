// The page: two files in, the transcript out.

import { models, ServerError, transcribe } from "./api.js";
import { format, save } from "./downloads.js";
import { Recorder } from "./recorder.js";
import { Slides } from "./slides.js";
import { clock, Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const transcript = new Transcript($("transcript"));
const slides = new Slides($("deck"), $("said"), $("likely"));
const chosen = { recording: null, slides: [] };
let running = null; // AbortController of the transcription under way

// ---- files

function choose(recording) {
  chosen.recording = recording;
  $("recording-name").textContent = recording ? `${recording.name}, ${(recording.size / 1e6).toFixed(1)} MB` : "";
}

function chooseSlides(files) {
  chosen.slides = [...files];
  $("slides-names").textContent = chosen.slides.map((file) => file.name).join(", ");
  $("clear-slides").hidden = !chosen.slides.length;
}

const isRecording = (file) => /^(audio|video)\//.test(file.type) || /\.(flac|wav|mp3|m4a|opus|ogg|amr|wma|mkv|aac|webm|mp4|mov)$/i.test(file.name);

// What is dropped goes where it belongs, wherever it is dropped.
function drop(files) {
  const recordings = files.filter(isRecording);
  const decks = files.filter((file) => !isRecording(file));
  if (recordings.length) choose(recordings[0]);
  if (decks.length) chooseSlides([...chosen.slides, ...decks]);
  if (recordings.length > 1) problem(`One recording at a time: ${recordings[0].name} was taken.`);
}

for (const zone of document.querySelectorAll(".drop")) {
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", () => zone.classList.remove("over"));
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); drop([...event.dataTransfer.files]); });
$("recording").addEventListener("change", (event) => choose(event.target.files[0] ?? null));
$("slides").addEventListener("change", (event) => chooseSlides(event.target.files));
$("clear-slides").addEventListener("click", () => { $("slides").value = ""; chooseSlides([]); });
new Recorder($("record"), choose, problem);

// ---- words that the reader is told

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function progress(done, text) {
  $("progress").hidden = false;
  if (done === null) $("bar").removeAttribute("value"); else $("bar").value = done;
  $("status").textContent = text;
}

// ---- transcription

async function start() {
  problem("");
  if (!chosen.recording) { problem("Choose a recording first, or try the sample talk."); $("recording").focus(); return; }
  if (!leaveResult()) return;
  running = new AbortController();
  busy(true);
  const url = URL.createObjectURL(chosen.recording);
  URL.revokeObjectURL($("audio").src);
  $("audio").src = url;
  progress(null, "Sending and reading the files");
  const value = (id) => $(id).value.trim();
  const request = { ...chosen, keywords: value("keywords"), language: value("language"), stages: value("stages"), term_bank: value("bank"), key: value("key") };
  slides.remember(chosen.slides);
  try {
    for await (const event of transcribe(request, running.signal)) receive(event);
  } catch (error) {
    $("progress").hidden = true;
    if (error.name === "AbortError") problem(transcript.segments.length ? "Stopped. What has come so far stays here." : "Stopped.");
    else if (error instanceof ServerError) problem(error.message);
    else { problem("The page failed; the console of the browser says more."); console.error(error); }
  } finally {
    running = null;
    busy(false);
  }
}

function leaveResult() {
  if (edited() && !window.confirm("The edited text is replaced. Go on?")) return false;
  setEditing(false);
  changed = false;
  transcript.clear();
  slides.clear();
  $("result").hidden = true;
  return true;
}

function receive(event) {
  if (event.type === "transcript.text.delta") {
    if ($("result").hidden) { $("result").hidden = false; $("result").scrollIntoView({ block: "nearest" }); }
    if (event.segment.text.trim()) {
      const row = transcript.add(event.segment, event.words);
      if (editing) transcript.editRow(row, true);
    }
    const number = event.segment.id + 1;
    progress(number / event.segments, `Part ${number} of ${event.segments}, ${clock(event.segment.end)} of ${clock(event.duration)}`);
  } else if (event.type === "transcript.text.done") {
    $("result").hidden = false;
    const keywords = event.keywords ?? [];
    const written = keywords.filter((one) => transcript.has(one.keyword)).length;
    slides.show(keywords, event.slides ?? [], (keyword) => transcript.has(keyword));
    progress(1, transcript.segments.length ? `Done: ${clock(event.duration)}, ${count(written)}` : "Done: no speech was found");
  }
}

function count(keywords) {
  return keywords === 1 ? "1 keyword in the transcript" : `${keywords} keywords in the transcript`;
}

function busy(on) {
  $("start").disabled = $("sample").disabled = on;
  $("stop").hidden = !on;
  $("ask").setAttribute("aria-busy", String(on));
}

$("ask").addEventListener("submit", (event) => { event.preventDefault(); start(); });
$("stop").addEventListener("click", () => running?.abort());
$("sample").addEventListener("click", async () => {
  try {
    const files = await Promise.all([["talk.flac", "audio/flac"], ["slides.md", "text/markdown"]].map(async ([name, type]) => {
      const response = await fetch(`sample/${name}`);
      if (!response.ok) throw new Error(name);
      return new File([await response.blob()], name, { type });
    }));
    choose(files[0]);
    chooseSlides([files[1]]);
    await start();
  } catch {
    problem("The sample talk cannot be read from the server.");
  }
});

// ---- player and words

const audio = $("audio");
let following = true;
function follow() {
  transcript.highlight(audio.currentTime, following && !audio.paused);
  if (!audio.paused) requestAnimationFrame(follow);
}
for (const name of ["play", "seeked", "pause"]) audio.addEventListener(name, follow);
$("transcript").addEventListener("wheel", () => { following = false; }, { passive: true });

function jump(word, play) {
  following = true;
  audio.currentTime = Math.max(0, word.start);
  if (play) audio.play().catch(() => {});
}

function focusWord(element) {
  if (!element) return;
  for (const one of $("transcript").querySelectorAll('.word[tabindex="0"]')) one.tabIndex = -1;
  element.tabIndex = 0;
  element.focus();
}

$("transcript").addEventListener("click", (event) => {
  const element = event.target.closest(".word");
  if (!element || editing) return;
  const word = transcript.wordOf(element);
  focusWord(element);
  if (word.keyword) slides.reveal(word.keyword);
  jump(word, false);
});

$("transcript").addEventListener("keydown", (event) => {
  const element = event.target.closest(".word");
  if (!element || editing || event.altKey || event.ctrlKey || event.metaKey) return;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 8, ArrowUp: -8 }[event.key];
  if (step) {
    event.preventDefault();
    let next = element;
    for (let left = Math.abs(step); left && next; left -= 1) next = transcript.neighbour(next, Math.sign(step)) ?? null;
    focusWord(next);
  } else if (event.key === "Enter") {
    event.preventDefault();
    const word = transcript.wordOf(element);
    if (word.keyword) slides.reveal(word.keyword);
    jump(word, true);
  }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, button, summary, a, audio, [contenteditable]");
  if (event.key !== " " || typing || $("result").hidden) return;
  event.preventDefault();
  if (audio.paused) audio.play().catch(() => {}); else audio.pause();
});

// ---- editing and files

let editing = false;
let changed = false;
function edited() { return changed; }

function setEditing(on) {
  if (editing === on) return;
  editing = on;
  transcript.edit(on);
  $("edit").setAttribute("aria-pressed", String(on));
  $("edit").textContent = on ? "Done with editing" : "Edit the text";
}

$("edit").addEventListener("click", () => setEditing(!editing));
$("transcript").addEventListener("input", () => { changed = true; });
window.addEventListener("beforeunload", (event) => { if (changed || running) event.preventDefault(); });

for (const button of document.querySelectorAll("[data-format]")) {
  button.addEventListener("click", () => {
    setEditing(false);
    const base = (chosen.recording?.name ?? "transcript").replace(/\.[^.]+$/, "");
    save(`${base}.${button.dataset.format}`, format(button.dataset.format, transcript));
  });
}

// ---- light and dark

function dark() {
  const own = document.documentElement.dataset.theme;
  return own ? own === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}
function setTheme(name) {
  if (name) document.documentElement.dataset.theme = name;
  $("theme").textContent = dark() ? "Light" : "Dark";
}
$("theme").addEventListener("click", () => { const name = dark() ? "light" : "dark"; localStorage.setItem("theme", name); setTheme(name); });
setTheme(localStorage.getItem("theme"));

// ---- what the server can do

async function learn() {
  const found = await models($("key").value.trim());
  const first = found[0] ?? {};
  $("bank").replaceChildren(new Option("none", ""), ...(first.term_banks ?? []).map((name) => new Option(name, name)));
}
learn().catch(() => {}); // a key is asked for, or the model is still being loaded: the first request will say so
$("key").addEventListener("change", () => learn().catch((error) => problem(error.message)));
