/**
 * What the room watches: a video file, or the test clock, kept where the room's playback is.
 *
 * @module
 */

/** Source id of the clock that lets anyone try a room without a video. */
export const TEST_CLOCK = "syncwatch:test-clock";

/** From here on a jump is less annoying than being off. */
const HARD_SEEK_MS = 250;
/** Closer than this nobody notices; correcting would only make the sound waver. */
const TOLERANCE_MS = 15;
/** How long a small difference is given to close, and the most the rate is bent for it. */
const NUDGE_OVER_MS = 2000;
const NUDGE_LIMIT = 0.05;
/** A paused picture may be this far off: seeking lands on frames, not on milliseconds. */
const PAUSED_TOLERANCE_MS = 40;
const TICK_MS = 200;

/** @param {number} ms @returns {string} `1:02:03`, with `.045` if `millis` is asked for */
export function timecode(ms, millis = false) {
  const total = Math.floor(Math.max(0, ms));
  const two = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(total / 3_600_000), Math.floor(total / 60_000) % 60, Math.floor(total / 1000) % 60];
  const text = millis || h > 0 ? `${two(h)}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
  return millis ? `${text}.${String(total % 1000).padStart(3, "0")}` : text;
}

/** Names what can show a source: `none`, `clock`, `video`, or `unsupported`. */
export function stageFor(playback) {
  if (!playback) return "none";
  if (playback.sourceType !== "external") return "unsupported";
  if (playback.sourceId === TEST_CLOCK) return "clock";
  return /^https?:\/\//i.test(playback.sourceId) ? "video" : "unsupported";
}

/** Follows one `SyncWatch`; dispatches `change` when what it shows changed. */
export class Player extends EventTarget {
  #sync;
  #video;
  #clock;
  #sourceId = null;
  #anchorTimer = 0;
  #seekStartedAt = 0;
  /** How long seeking has taken of late: playback moves on meanwhile, so a seek aims this far ahead. */
  #seekCostMs = 0;
  #starting = false;

  stage = "none";
  /** The browser wants a click before it plays sound. */
  blocked = false;
  /** The video cannot be loaded or decoded. */
  failed = false;

  /**
   * @param {import("./client.js").SyncWatch} sync
   * @param {HTMLVideoElement} video
   * @param {{ time: HTMLElement, sweep: HTMLElement }} clock
   */
  constructor(sync, video, clock) {
    super();
    this.#sync = sync;
    this.#video = video;
    this.#clock = clock;
    sync.addEventListener("change", () => this.#follow());
    setInterval(() => this.#correct(), TICK_MS);
    const draw = () => {
      this.#draw();
      requestAnimationFrame(draw);
    };
    draw();
    video.addEventListener("error", () => this.#set({ failed: this.stage === "video" }));
    video.addEventListener("loadedmetadata", () => this.#set({ failed: false }));
    video.addEventListener("seeking", () => (this.#seekStartedAt = performance.now()));
    video.addEventListener("seeked", () => {
      this.#seekCostMs = Math.min(1000, performance.now() - this.#seekStartedAt);
      this.#correct();
    });
  }

  /** Length of what is shown, milliseconds; `Infinity` where there is no end, as with the clock. */
  get durationMs() {
    return this.stage === "video" && this.#video.duration > 0 ? this.#video.duration * 1000 : Infinity;
  }

  /** Where the room is, which is what a seek bar shows: the video itself may be a hair off. */
  get positionMs() {
    return Math.min(this.#sync.position(), this.durationMs);
  }

  /** To be called from a click: the browser lets a page make sound only then. */
  unblock() {
    this.#set({ blocked: false });
    this.#correct();
  }

  #set(facts) {
    Object.assign(this, facts);
    this.dispatchEvent(new Event("change"));
  }

  #follow() {
    const playback = this.#sync.playback;
    const stage = stageFor(playback);
    const sourceId = stage === "video" ? playback.sourceId : null;
    if (sourceId !== this.#sourceId) {
      this.#sourceId = sourceId;
      if (sourceId) this.#video.src = sourceId;
      else this.#video.removeAttribute("src");
      this.#video.load();
      this.#set({ failed: false, blocked: false });
    }
    if (stage !== this.stage) this.#set({ stage });
    // A command takes effect a little after it came: everyone acts at that moment, not at their next tick.
    clearTimeout(this.#anchorTimer);
    const wait = playback ? playback.anchorServerTimeMs - this.#sync.serverNow() : 0;
    this.#anchorTimer = setTimeout(() => this.#correct(), Math.max(0, wait));
  }

  #correct() {
    const state = this.#sync.playbackAt();
    const video = this.#video;
    if (this.stage !== "video" || !state || video.readyState < HTMLMediaElement.HAVE_METADATA || video.seeking) return;
    const target = this.positionMs;
    const drift = video.currentTime * 1000 - target;
    if (!state.isPlaying || target >= this.durationMs) {
      if (!video.paused) video.pause();
      if (Math.abs(drift) > PAUSED_TOLERANCE_MS) video.currentTime = target / 1000;
      return;
    }
    if (video.paused) this.#start();
    // A video without data would only be thrown into the next hole; it is put right once it plays.
    if (video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA) return;
    let nudge = 0;
    if (Math.abs(drift) > HARD_SEEK_MS) {
      video.currentTime = Math.min(target + this.#seekCostMs * state.playbackRate, this.durationMs) / 1000;
    } else if (Math.abs(drift) > TOLERANCE_MS) {
      nudge = Math.max(-NUDGE_LIMIT, Math.min(NUDGE_LIMIT, -drift / NUDGE_OVER_MS));
    }
    const rate = state.playbackRate * (1 + nudge);
    if (Math.abs(video.playbackRate - rate) > 0.002) video.playbackRate = rate;
  }

  async #start() {
    if (this.#starting || this.blocked) return;
    this.#starting = true;
    try {
      await this.#video.play();
    } catch (error) {
      if (error.name === "NotAllowedError") this.#set({ blocked: true });
    }
    this.#starting = false;
  }

  #draw() {
    if (this.stage !== "clock") return;
    const position = this.#sync.position();
    this.#clock.time.textContent = timecode(position, true);
    this.#clock.sweep.style.transform = `rotate(${((position / 1000) % 60) * 6}deg)`;
  }
}
