// A recording with the microphone.

// What browsers do for calls takes parts of words away, first of those who are far from the microphone, and clips loud ones.
const SOUND = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };

export class Recorder {
  constructor(button, finished, failed) {
    this.button = button;
    this.finished = finished;
    this.failed = failed;
    this.recorder = null;
    button.hidden = !(navigator.mediaDevices && window.MediaRecorder);
    button.addEventListener("click", () => this.toggle());
  }

  async toggle() {
    if (this.recorder) { this.recorder.stop(); return; }
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: SOUND });
    } catch (error) {
      this.failed(`The microphone cannot be used: ${error.message}`);
      return;
    }
    const parts = [];
    this.recorder = new MediaRecorder(stream);
    this.recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    this.recorder.addEventListener("stop", () => {
      for (const track of stream.getTracks()) track.stop();
      const type = this.recorder.mimeType || "audio/webm";
      this.recorder = null;
      this.shown(false);
      this.finished(new File(parts, `recording.${type.includes("mp4") ? "m4a" : type.includes("ogg") ? "ogg" : "webm"}`, { type }));
    });
    this.recorder.start();
    this.shown(true);
  }

  shown(on) {
    this.button.setAttribute("aria-pressed", String(on));
    this.button.textContent = on ? "End the recording" : "Record with the microphone";
  }
}
