// The server's API: what it can do, and a transcription as a stream of segments.

export class ServerError extends Error {}

function headers(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function reason(response) {
  try {
    const body = await response.json();
    return body.error.message;
  } catch {
    return `the server answered ${response.status} ${response.statusText}`;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is sap2 serve still running?");
  }
  if (!response.ok) {
    const error = new ServerError(await reason(response));
    error.status = response.status;
    const after = response.headers.get("Retry-After");
    if (after) error.message += ` Try again in ${after} s.`;
    throw error;
  }
  return response;
}

export async function models(key) {
  const response = await ask("v1/models", { headers: headers(key) });
  return (await response.json()).data;
}

function form(request, words) {
  const data = new FormData();
  data.append("file", request.recording, request.recording.name || "recording.webm");
  for (const deck of request.slides) data.append("slides", deck, deck.name);
  if (request.keywords.trim()) data.append("keywords", request.keywords);
  for (const name of ["language", "stages", "term_bank"]) if (request[name]) data.append(name, request[name]);
  data.append("response_format", "verbose_json");
  data.append("timestamp_granularities[]", "segment");
  if (words) data.append("timestamp_granularities[]", "word");
  data.append("include[]", "slides");
  data.append("stream", "true");
  return data;
}

// The events of a response, one by one; a line may come in several parts.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The connection to the server broke off. What has come so far stays here.");
    }
    rest += part.value ?? "";
    const pieces = rest.split("\n\n");
    rest = pieces.pop();
    for (const piece of pieces) {
      const data = piece.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5)).join("\n");
      if (data) yield JSON.parse(data);
    }
    if (part.done) return;
  }
}

// Yields the server's events, of which the last is transcript.text.done.
export async function* transcribe(request, signal) {
  const send = (words) => ask("v1/audio/transcriptions",
    { method: "POST", body: form(request, words), headers: headers(request.key), signal });
  let response;
  try {
    response = await send(true);
  } catch (error) {
    if (error.status !== 400 || !/spotter|word/i.test(error.message)) throw error;
    response = await send(false); // a model that cannot tell the times of words
  }
  let done = false;
  for await (const event of events(response)) {
    if (event.error) throw new ServerError(event.error.message);
    done = event.type === "transcript.text.done";
    yield event;
  }
  if (!done) throw new ServerError("The connection to the server broke off. What has come so far stays here.");
}
