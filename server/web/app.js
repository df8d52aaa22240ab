/**
 * The reference page: a lobby to open or join a room, and the room.
 *
 * What peers send (names, messages, links) reaches the page as text only. A name or another text of theirs stands in a
 * `bdi` element, or between isolates where there can be no element: its letters may run from right to left, and must not
 * reorder the text around it.
 *
 * @module
 */
import { SyncWatch, SyncWatchError } from "./client.js";
import { Player, TEST_CLOCK, stageFor, timecode } from "./player.js";

const $ = (id) => document.getElementById(id);

/** What this tab remembers over a reload; nothing, where the browser forbids it. */
const memory = {
  get(key) {
    try {
      return sessionStorage.getItem(`syncwatch:${key}`) ?? undefined;
    } catch {
      return undefined;
    }
  },
  set(key, value) {
    try {
      if (value === undefined) sessionStorage.removeItem(`syncwatch:${key}`);
      else sessionStorage.setItem(`syncwatch:${key}`, value);
    } catch {
      // A page that forgets still works.
    }
  },
};

/** Who the page is to the server: nobody (a guest), or the bearer of the token that came with a room it opened. */
let token;
/** The path the server is under, behind a proxy perhaps: `/`, or `/watch/`. A room's page asks for this file beside it. */
const BASE = new URL(import.meta.url).pathname.replace(/(r\/)?app\.js$/, "");
for (const link of document.querySelectorAll("[data-home]")) link.href = BASE;

const sync = new SyncWatch({ url: location.origin + BASE, token: () => token });
const player = new Player(sync, $("video"), { time: $("timecode"), sweep: $("sweep") });
/** For the console. */
globalThis.syncwatch = sync;

// --- Errors and the connection

const ERRORS = {
  ROOM_NOT_FOUND: "There is no such room. It may have expired, or the code has a typo.",
  ROOM_FULL: "The room is full.",
  ALREADY_IN_ROOM: "You are already in a room.",
  NOT_IN_ROOM: "You are not in this room any more.",
  INVALID_TOKEN: "Your access token is not valid, or has expired.",
  RATE_LIMIT_EXCEEDED: "That was a little fast. Wait a moment and try again.",
  UNAVAILABLE: "The server cannot do that just now. Try again in a moment.",
  DISCONNECTED: "There is no connection to the server.",
  TIMEOUT: "The server did not answer. Try again in a moment.",
};

const LEFT = {
  kicked: "You were removed from the room.",
  replaced: "You opened this room somewhere else, and that took your seat here.",
  closed: "The room was closed.",
  refused: "You could not get back into the room.",
};

/** A text of a peer for a place that takes text only. */
const isolated = (text) => `\u2068${text}\u2069`;

/** A text of a peer for the page. */
function foreign(text) {
  const made = document.createElement("bdi");
  made.textContent = text;
  return made;
}

function showError(error) {
  const password = error.code === "INVALID_PASSWORD";
  $("error-text").textContent = password
    ? joinForm.password.value ? "That is not the room's password." : "This room needs a password."
    : ERRORS[error.code] ?? error.message;
  $("error").hidden = false;
  if (password) {
    $("join-password").hidden = false;
    joinForm.password.focus();
  }
}

function clearError() {
  $("error").hidden = true;
}

$("error-close").addEventListener("click", clearError);
// One that answers a request has been shown where the request was made.
sync.addEventListener("room:error", ({ detail }) => detail.event || showError(detail));

/** Runs what a control asked for; a refusal is shown, not thrown. */
async function attempt(action) {
  clearError();
  try {
    return await action();
  } catch (error) {
    showError(error);
    return undefined;
  }
}

/** The same for a form, which is locked meanwhile. */
function onSubmit(form, action) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button:not([type=button])");
    button.disabled = true;
    await attempt(action);
    button.disabled = false;
  });
}

let wasOnline = false;
sync.addEventListener("status", ({ detail: { status, error, retryInMs } }) => {
  const seconds = Math.round(retryInMs / 1000);
  const banner = {
    waiting: `${wasOnline ? "Connection lost" : "The server cannot be reached"}. Trying again${seconds > 1 ? ` in ${seconds} s` : ""}…`,
    connecting: wasOnline ? "Reconnecting…" : "",
    closed: error ? "Disconnected" : "",
  };
  wasOnline ||= status === "online";
  $("banner").textContent = banner[status] ?? "";
  if (error) showError(error);
});

// --- Lobby

const createForm = $("create").elements;
const joinForm = $("join").elements;

async function api(path, options) {
  let answer;
  try {
    answer = await (await fetch(path, options)).json();
  } catch {
    throw new SyncWatchError({ code: "UNAVAILABLE", message: "The server did not answer" });
  }
  if (!answer.success) throw new SyncWatchError(answer.error);
  return answer;
}

function roomPath(code) {
  return `${BASE}r/${encodeURIComponent(code)}`;
}

async function join(request) {
  memory.set("name", request.guestName);
  await sync.join(request);
}

/** Makes the address, and a reload, lead here. */
function settle({ code }) {
  memory.set("room", code);
  memory.set(`token:${code}`, token);
  if (location.pathname !== roomPath(code)) history.pushState(null, "", roomPath(code));
}

/** Joins as `nextToken`'s bearer: an identity belongs to a connection, so another one needs a new connection. */
function become(nextToken) {
  if (nextToken === token) return;
  token = nextToken;
  sync.close();
}

onSubmit($("create"), async () => {
  const optional = (value) => value || undefined;
  const bearer = optional(createForm.token.value.trim());
  const room = {
    name: optional(createForm.name.value.trim()),
    password: optional(createForm.password.value),
    maxParticipants: optional(createForm.maxParticipants.valueAsNumber),
    playbackControl: createForm.playbackControl.value,
  };
  const headers = { "Content-Type": "application/json", ...(bearer && { Authorization: `Bearer ${bearer}` }) };
  const answer = await api(`${BASE}api/rooms`, { method: "POST", headers, body: JSON.stringify(room) });
  become(answer.token ?? bearer);
  await join({ roomCode: answer.data.code, guestName: createForm.guestName.value.trim(), password: room.password });
});

onSubmit($("join"), () => {
  const roomCode = joinForm.roomCode.value.trim().toUpperCase();
  become(memory.get(`token:${roomCode}`));
  return join({ roomCode, guestName: joinForm.guestName.value.trim(), password: joinForm.password.value || undefined });
});

function codeInAddress() {
  return /\/r\/([A-Za-z0-9]{8})\/?$/.exec(location.pathname)?.[1].toUpperCase();
}

/** Shows the lobby for this address: a shared link asks for a name only, and says what it leads to. */
async function showLobby() {
  const code = codeInAddress();
  for (const form of [createForm, joinForm]) form.guestName.value ||= memory.get("name") ?? "";
  $("create").hidden = Boolean(code);
  $("join-elsewhere").hidden = !code;
  $("lobby-title").textContent = code ? "You are invited." : "Watch together, in sync.";
  $("lobby-lead").textContent = code
    ? "Pick a name, and everyone in the room sees the same moment."
    : "Open a room, share its link, and everyone sees the same moment.";
  $("join-about").hidden = true;
  $("join-password").hidden = false;
  $("join-title").textContent = "Join a room";
  if (!code) return;
  joinForm.roomCode.value = code;
  try {
    const { data: room } = await api(`${BASE}api/rooms/${code}`);
    $("join-title").replaceChildren(room.name ? foreign(room.name) : "Join the room");
    $("join-about").textContent = room.participantCount === 1 ? "One person is inside." : `${room.participantCount} people are inside.`;
    $("join-about").hidden = !(room.participantCount > 0);
    $("join-password").hidden = !room.hasPassword;
  } catch (error) {
    if (error.code !== "ROOM_NOT_FOUND") return; // the join will tell
    $("lobby-title").textContent = "Nobody here.";
    showError(error);
  }
}

/** Puts the page where its address says: the room this tab was in before a reload, or the lobby. */
async function arrive() {
  showLobby();
  const [roomCode, guestName] = [codeInAddress(), memory.get("name")];
  if (roomCode && guestName && roomCode === memory.get("room")) {
    become(memory.get(`token:${roomCode}`));
    await attempt(() => join({ roomCode, guestName }));
  }
  $("lobby").hidden = sync.room !== null;
}

window.addEventListener("popstate", async () => {
  if (sync.room) await attempt(() => sync.leave());
  arrive();
});

// --- The room

let shownRoom = null;

function render() {
  const { room } = sync;
  if ((room?.id ?? null) !== shownRoom) {
    shownRoom = room?.id ?? null;
    $("lobby").hidden = room !== null;
    $("room").hidden = room === null;
    $("log").replaceChildren();
    $("settings").open = false;
    if (room) {
      settle(room);
      clearError();
    }
    (room ? $("room-name") : $("lobby-title")).focus();
  }
  document.title = room ? `${room.name ? isolated(room.name) : room.code} · SyncWatch` : "SyncWatch";
  if (!room) return;
  $("room-name").replaceChildren(room.name ? foreign(room.name) : "Watch party");
  $("room-code").textContent = room.code;
  renderPeople(room);
  renderSettings(room);
  renderStage();
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function nameOf(participant) {
  return participant?.guestName ?? participant?.username ?? "Someone";
}

function controls(participant, room) {
  if (participant.role === "owner") return true;
  return room.playbackControl === "all" ? participant.role !== "guest" : room.playbackControl === "selected" && participant.canControl;
}

function renderPeople(room) {
  const people = [...sync.participants.values()];
  $("people-count").textContent = `${people.length} of ${room.maxParticipants}`;
  const focused = document.activeElement?.closest?.("#people button")?.dataset.key;
  $("people").replaceChildren(...people.map((participant) => person(participant, room)));
  if (focused) document.querySelector(`#people button[data-key="${CSS.escape(focused)}"]`)?.focus();
}

function person(participant, room) {
  const { oderId, online, role } = participant;
  const row = element("li", "", { "data-oder-id": oderId, class: online ? "" : "away" });
  const name = element("span", "", { class: "name" });
  name.append(foreign(nameOf(participant)));
  if (oderId === sync.oderId) name.append(element("small", " you"));
  const tags = element("span", "", { class: "tags" });
  if (role !== "participant") tags.append(element("span", role, { class: `tag ${role}` }));
  if (role !== "owner" && controls(participant, room)) tags.append(element("span", "can control", { class: "tag" }));
  const state = online ? "online" : "away";
  row.append(element("i", "", { class: `dot ${state}`, "aria-hidden": "true" }), name, tags, element("span", state, { class: "state" }));
  if (sync.isOwner && oderId !== sync.oderId) row.append(ownerActions(participant, room));
  return row;
}

function ownerActions(participant, room) {
  const { oderId, canControl } = participant;
  const actions = element("span", "", { class: "actions" });
  const action = (key, text, label, act) => {
    const button = element("button", text, { type: "button", "aria-label": label, "data-key": `${oderId} ${key}` });
    button.addEventListener("click", () => attempt(act));
    actions.append(button);
  };
  const name = nameOf(participant);
  if (room.playbackControl === "selected") {
    const [text, label] = canControl ? ["Revoke", `Take control from ${name}`] : ["Let control", `Let ${name} control playback`];
    action("grant", text, label, () => sync.grant(oderId, !canControl));
  }
  action("kick", "Remove", `Remove ${name} from the room`, async () => {
    if (confirm(`Remove ${isolated(name)} from the room?`)) await sync.kick(oderId);
  });
  return actions;
}

function renderSettings(room) {
  $("settings").hidden = !sync.isOwner;
  if ($("settings-form").contains(document.activeElement)) return; // not under the owner's hands
  for (const field of ["playbackControl", "waitFor", "maxParticipants", "name"])
    $("settings-form").elements[field].value = room[field] ?? "";
}

onSubmit($("settings-form"), async () => {
  const fields = $("settings-form").elements;
  await sync.update({
    playbackControl: fields.playbackControl.value,
    waitFor: fields.waitFor.value,
    maxParticipants: fields.maxParticipants.valueAsNumber,
    name: fields.name.value.trim(),
  });
  $("settings-saved").textContent = "Saved";
  setTimeout(() => ($("settings-saved").textContent = ""), 3000);
});

$("copy").addEventListener("click", async () => {
  const link = location.origin + roomPath(sync.room.code);
  try {
    await navigator.clipboard.writeText(link);
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy link"), 2000);
  } catch {
    prompt("The link to this room:", link); // no clipboard without HTTPS
  }
});

$("leave").addEventListener("click", () => attempt(() => sync.leave()));

sync.addEventListener("left", ({ detail: { reason, message, error } }) => {
  memory.set("room", undefined);
  if (location.pathname !== BASE) history.pushState(null, "", BASE);
  names.clear();
  showLobby();
  if (reason === "leave") return;
  showError({ message: [LEFT[reason], message && isolated(message), error && (ERRORS[error.code] ?? error.message)].filter(Boolean).join(" ") });
});

// --- The stage and its controls

const UNSUPPORTED = { youtube: "YouTube videos", upload: "uploaded videos" };

function renderStage() {
  const { playback, canControl } = sync;
  const { stage } = player;
  $("video").hidden = stage !== "video" || player.failed;
  $("clock").hidden = stage !== "clock";
  $("unblock").hidden = !player.blocked;
  $("transport").hidden = stage === "none" || stage === "unsupported";
  $("controls").hidden = !canControl;
  $("volume-label").hidden = stage !== "video";
  $("source").hidden = !canControl;
  $("control-note").textContent = canControl ? "" : "The owner decides who controls playback; you are along for the ride.";
  const notice = {
    none: canControl ? "Nothing is on yet. Load a video below, or try the test clock." : "Nothing is on yet.",
    unsupported: `This page plays links to video files. It cannot show ${UNSUPPORTED[playback?.sourceType] ?? "this link"}.`,
    video: player.failed ? "This video cannot be loaded here." : "",
  }[stage];
  $("notice").textContent = notice ?? "";
  $("notice").hidden = !notice;
  if (!playback) return;
  $("stage").classList.toggle("playing", playback.isPlaying);
  $("clock-note").textContent = `${playback.isPlaying ? "Running" : "Paused"} at ${playback.playbackRate}×`;
  $("play").classList.toggle("playing", playback.isPlaying);
  $("play").setAttribute("aria-label", playback.isPlaying ? "Pause" : "Play");
  showRate(playback.playbackRate);
}

/** Any rate may come from another client: one that is not on the list is put there. */
function showRate(rate) {
  const select = $("rate");
  if (![...select.options].some((option) => Number(option.value) === rate)) select.add(new Option(`${rate}×`, rate));
  select.value = String(rate);
}

const SEEK_SPAN_MS = 600_000;
let dragging = false;

/** The seek bar and its times; a source without an end gets a bar that grows. */
function renderPosition() {
  if (!sync.playback || $("transport").hidden) return;
  const position = player.positionMs;
  const end = Number.isFinite(player.durationMs) ? player.durationMs : Math.ceil((position + 1) / SEEK_SPAN_MS) * SEEK_SPAN_MS;
  $("position").textContent = timecode(position);
  $("duration").textContent = Number.isFinite(player.durationMs) ? ` / ${timecode(end)}` : "";
  $("seek").max = String(Math.ceil(end / 1000));
  if (!dragging) $("seek").value = String(Math.round(position / 1000));
  $("seek").setAttribute("aria-valuetext", timecode(Number($("seek").value) * 1000));
}

function seekTo(ms) {
  return attempt(() => sync.seek(Math.round(Math.min(Math.max(0, ms), player.durationMs))));
}

function togglePlay() {
  return attempt(() => (sync.playback?.isPlaying ? sync.pause() : sync.play()));
}

let seekTimer = 0;
$("seek").addEventListener("input", () => {
  // A held key or a drag would be dozens of commands a second; only where it rests is meant.
  dragging = true;
  clearTimeout(seekTimer);
  seekTimer = setTimeout(async () => {
    await seekTo($("seek").valueAsNumber * 1000);
    dragging = false;
  }, 200);
});
$("play").addEventListener("click", togglePlay);
$("back").addEventListener("click", () => seekTo(player.positionMs - 10_000));
$("forward").addEventListener("click", () => seekTo(player.positionMs + 10_000));
$("rate").addEventListener("change", () => attempt(() => sync.setRate(Number($("rate").value))));
$("volume").addEventListener("input", () => ($("video").volume = $("volume").valueAsNumber));
$("fullscreen").hidden = !document.fullscreenEnabled;
$("fullscreen").addEventListener("click", () => $("stage").requestFullscreen());
$("unblock").addEventListener("click", () => player.unblock());
$("test-clock").addEventListener("click", () => attempt(() => sync.setSource("external", TEST_CLOCK)));
onSubmit($("source"), async () => {
  const url = $("source").elements.url;
  if (stageFor({ sourceType: "external", sourceId: url.value }) !== "video")
    throw new SyncWatchError({ code: "VALIDATION_ERROR", message: "Enter a link that starts with https:// or http://." });
  await sync.setSource("external", url.value);
  url.value = "";
});

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, button, textarea, summary, a") || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = (ms) => () => seekTo(player.positionMs + ms);
  const act = { " ": togglePlay, k: togglePlay, ArrowLeft: step(-5000), ArrowRight: step(5000) }[event.key];
  if (!act || $("transport").hidden || $("controls").hidden) return;
  event.preventDefault();
  act();
});

// --- Comings and goings

const LOG_KEPT = 200;

function log(row) {
  const list = $("log");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(row);
  while (list.children.length > LOG_KEPT) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

/** Logs what the participant of a name did. */
function note(name, did) {
  const row = element("li", "", { class: "note" });
  row.append(foreign(name), ` ${did}`);
  log(row);
}

/** `left` names only the id, and by then the client has forgotten who it was. */
const names = new Map();

sync.addEventListener("room:participant:joined", ({ detail }) => note(nameOf(detail.participant), "joined."));
sync.addEventListener("room:participant:left", ({ detail: { oderId, reason } }) => {
  const did = { kicked: "was removed.", timeout: "lost the connection." }[reason] ?? "left.";
  note(names.get(oderId) ?? "Someone", did);
});
sync.addEventListener("room:owner:changed", ({ detail }) => note(names.get(detail.oderId) ?? "Someone else", "is the owner now."));
sync.addEventListener("change", () => {
  for (const [oderId, participant] of sync.participants) names.set(oderId, nameOf(participant));
});

// --- Start

sync.addEventListener("change", render);
player.addEventListener("change", renderStage);
setInterval(renderPosition, 250);
arrive();
