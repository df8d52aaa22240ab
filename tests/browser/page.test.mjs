/**
 * The reference page in Chromium, against the real binary.
 *
 *     SYNCWATCH_BIN=target/release/syncwatch npm test
 *
 * `CHROMIUM` names the browser; without it the first `chromium` on the PATH is taken. Both browser contexts run on one
 * machine, so `Date.now()` is a truth they share and the page under test knows nothing of.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const TOGETHER_MS = 50;
const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
// Nothing but the page may reach for the network.
ARGS.push("--disable-background-networking", "--disable-component-update", "--disable-sync");

let browser;

before(async () => {
  const executablePath = process.env.CHROMIUM ?? execFileSync("which", ["chromium"], { encoding: "utf8" }).trim();
  browser = await chromium.launch({ executablePath, args: ARGS });
});

after(() => browser?.close());

/** Runs the binary on a data directory of its own until the test ends; `restart` keeps both port and data. */
async function serve(t) {
  const dataDir = await mkdtemp(join(tmpdir(), "syncwatch-page-"));
  const server = { process: null, url: null };
  const start = async (port) => {
    const env = { ...process.env, HOST: "127.0.0.1", PORT: String(port), DATA_DIR: dataDir };
    server.process = spawn(process.env.SYNCWATCH_BIN ?? "syncwatch", { env, stdio: ["ignore", "pipe", "inherit"] });
    server.url = await ready(server.process);
  };
  server.stop = async () => {
    if (server.process.exitCode !== null || server.process.signalCode !== null) return;
    const exited = once(server.process, "exit");
    server.process.kill("SIGTERM");
    await exited;
  };
  server.start = () => start(new URL(server.url).port);
  t.after(async () => {
    await server.stop();
    await rm(dataDir, { recursive: true, force: true });
  });
  await start(0);
  return server;
}

/** The address the binary says it listens on; its output is read on, lest the pipe fill up. */
function ready(child) {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the server ended with ${code} before it was ready`)));
    createInterface({ input: child.stdout }).on("line", (line) => {
      const [, url] = /^SyncWatch is ready: (http:\S+)/.exec(line) ?? [];
      if (url) resolve(url);
    });
  });
}

/** A person: a browser context of their own, and what their console complained about. */
async function person(t) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  return { page, complaints };
}

async function createRoom(page, url, guestName) {
  await page.goto(url);
  const form = page.locator("#create");
  await form.getByLabel("Your name").fill(guestName);
  await form.getByLabel("Room name").fill("Movie night");
  await form.getByRole("button", { name: "Create room" }).click();
  await page.locator("#room").waitFor();
  return page.url();
}

async function joinByLink(page, link, guestName) {
  await page.goto(link);
  await page.locator("#join").getByLabel("Your name").fill(guestName);
  await page.locator("#join").getByRole("button", { name: "Join" }).click();
  await page.locator("#room").waitFor();
}

const row = (page, name) => page.locator("#people li").filter({ has: page.locator(".name", { hasText: name }) });
const running = (page) => page.locator("#stage.playing").waitFor();
const until = (page, condition, argument) => page.waitForFunction(condition, argument);

/**
 * What the page shows of the test clock, less the wall clock: equal everywhere while playing at 1x. The median of a few
 * frames, for a busy machine may pause a page between drawing a frame and looking at it.
 */
function shownLessWall(page) {
  return page.evaluate(async () => {
    const seen = [];
    while (seen.length < 9) {
      await new Promise(requestAnimationFrame); // after the page's own callback, which has just drawn
      const [h, m, s] = document.getElementById("timecode").textContent.split(":").map(Number);
      seen.push((h * 3600 + m * 60 + s) * 1000 - Date.now());
    }
    return seen.sort((a, b) => a - b)[4];
  });
}

/** On a busy machine the first samples of the clock may be poor; the client takes more every 20 s. */
function clockIsGood(page) {
  return page.waitForFunction(() => syncwatch.clock.roundTrip < 40, null, { timeout: 60_000 });
}

function assertTogether(a, b, what) {
  assert.ok(Math.abs(a - b) <= TOGETHER_MS, `${what}: ${Math.abs(a - b).toFixed(1)} ms apart`);
}

test("two people see each other and the same moment", async (t) => {
  const { url } = await serve(t);
  const [ada, bob] = [await person(t), await person(t)];
  const link = await createRoom(ada.page, url, "Ada");
  assert.match(new URL(link).pathname, /^\/r\/[A-Z2-9]{8}$/);
  await joinByLink(bob.page, link, "Bob");

  for (const { page } of [ada, bob]) {
    await row(page, "Ada").getByText("owner", { exact: true }).waitFor();
    await row(page, "Bob").getByText("online", { exact: true }).waitFor();
    assert.equal(await page.locator("#people li").count(), 2);
  }
  assert.equal(await bob.page.locator("#source").isVisible(), false, "a guest has no controls");

  await ada.page.getByRole("button", { name: "Use the test clock" }).click();
  await bob.page.locator("#clock").waitFor();
  await ada.page.getByRole("button", { name: "Play", exact: true }).click();
  await Promise.all([running(ada.page), running(bob.page)]);
  await until(bob.page, () => syncwatch.position() > 500);
  await Promise.all([clockIsGood(ada.page), clockIsGood(bob.page)]);

  const at = await ada.page.evaluate(() => syncwatch.serverNow());
  const positions = await Promise.all([ada, bob].map(({ page }) => page.evaluate((t) => syncwatch.position(t), at)));
  assert.equal(positions[0], positions[1], "one server time, one position");
  assertTogether(...(await Promise.all([ada, bob].map(({ page }) => shownLessWall(page)))), "while playing");

  await ada.page.locator("#people").getByRole("button", { name: "Let Bob control playback" }).click();
  await bob.page.getByRole("button", { name: "+10 s" }).click();
  for (const { page } of [ada, bob]) await until(page, () => syncwatch.position() > 10_000);
  assertTogether(...(await Promise.all([ada, bob].map(({ page }) => shownLessWall(page)))), "after a seek");
  await bob.page.getByRole("button", { name: "Pause", exact: true }).click();
  for (const { page } of [ada, bob]) await until(page, () => syncwatch.playbackAt()?.isPlaying === false);
  const paused = await Promise.all([ada, bob].map(({ page }) => page.evaluate(() => syncwatch.position())));
  assert.equal(paused[0], paused[1], "paused at one position");

  await bob.page.reload();
  await bob.page.locator("#room").waitFor();
  await ada.page.locator("#log").getByText("Bob left.").waitFor();
  await row(ada.page, "Bob").getByText("online", { exact: true }).waitFor();
  assert.equal(await bob.page.evaluate(() => syncwatch.position()), paused[0], "a reload loses nothing");

  await bob.page.close();
  await row(ada.page, "Bob").waitFor({ state: "detached" });
  assert.deepEqual([ada.complaints, bob.complaints], [[], []]);
});

test("the owner changes the room and removes people", async (t) => {
  const { url } = await serve(t);
  const [ada, bob] = [await person(t), await person(t)];
  const link = await createRoom(ada.page, url, "Ada");
  await joinByLink(bob.page, link, "<b>Bob</b>");
  assert.equal(await row(ada.page, "<b>Bob</b>").count(), 1, "a name is text");

  await ada.page.getByText("Room settings").click();
  const settings = ada.page.locator("#settings-form");
  await settings.getByLabel("Most people").fill("7");
  await settings.getByLabel("Room name").fill("Late show");
  await settings.getByRole("button", { name: "Save" }).click();
  await bob.page.getByRole("heading", { name: "Late show" }).waitFor();
  await bob.page.getByText("2 of 7").waitFor();
  assert.equal(await bob.page.locator("#settings").isVisible(), false);

  await ada.page.locator("#log").getByText("<b>Bob</b> joined.").waitFor();

  ada.page.once("dialog", (dialog) => dialog.accept());
  await ada.page.locator("#people").getByRole("button", { name: /^Remove/ }).click();
  await bob.page.getByRole("alert").getByText("You were removed").waitFor();
  await bob.page.locator("#lobby").waitFor();
  await row(ada.page, "Bob").waitFor({ state: "detached" });
  assert.deepEqual([ada.complaints, bob.complaints], [[], []]);
});

test("a name changes nothing around it, and none is cut", async (t) => {
  const { url } = await serve(t);
  const [ada, bob, eve] = [await person(t), await person(t), await person(t)];
  const link = await createRoom(ada.page, url, "Ada");
  await joinByLink(bob.page, link, "Ada\u200b");
  await joinByLink(eve.page, link, "\u202eמחר 3");
  await ada.page.locator("#people li").nth(2).waitFor();
  assert.deepEqual(await ada.page.locator("#people .name bdi").allTextContents(), ["Ada", "Ada (2)", "מחר 3"]);
  await ada.page.locator("#log").getByText("מחר 3 joined.").waitFor();
  assert.deepEqual(await ada.page.locator("#log bdi").allTextContents(), ["Ada (2)", "מחר 3"]);
  assert.deepEqual(await ada.page.locator("#room-name bdi").allTextContents(), ["Movie night"]);
  assert.equal(await ada.page.title(), "\u2068Movie night\u2069 · SyncWatch");

  const long = await person(t);
  await long.page.goto(link);
  assert.equal(await long.page.locator("#join-title bdi").textContent(), "Movie night");
  await long.page.locator("#join").getByLabel("Your name").focus();
  await long.page.keyboard.insertText("x".repeat(51)); // as it is pasted
  await long.page.locator("#join").getByRole("button", { name: "Join" }).click();
  await long.page.getByRole("alert").getByText("guestName must be a string of 1 to 50 characters").waitFor();
  assert.deepEqual([ada.complaints, bob.complaints, eve.complaints, long.complaints], [[], [], [], []]);
});

test("a video is kept where the room is", async (t) => {
  const { url } = await serve(t);
  const media = await serveTone(t);
  const [ada, bob] = [await person(t), await person(t)];
  const link = await createRoom(ada.page, url, "Ada");
  await joinByLink(bob.page, link, "Bob");
  await ada.page.getByLabel("Video link").fill(media);
  await ada.page.getByRole("button", { name: "Load" }).click();
  await ada.page.getByRole("button", { name: "Play", exact: true }).click();

  const close = () => {
    const video = document.getElementById("video");
    return !video.paused && !video.seeking && syncwatch.position() > 1000 && Math.abs(video.currentTime * 1000 - syncwatch.position()) < 50;
  };
  for (const { page } of [ada, bob]) await until(page, close);
  // Thrown off by hand, a little and a lot: it finds back.
  for (const seconds of [0.15, 20]) {
    await bob.page.evaluate((by) => (document.getElementById("video").currentTime += by), seconds);
    await until(bob.page, close);
  }
  assert.deepEqual([ada.complaints, bob.complaints], [[], []]);
});

test("the page comes back by itself when the server restarts", async (t) => {
  const server = await serve(t);
  const [ada, bob] = [await person(t), await person(t)];
  const link = await createRoom(ada.page, server.url, "Ada");
  await joinByLink(bob.page, link, "Bob");
  await server.stop();
  await ada.page.locator("#banner").getByText("Connection lost").waitFor();
  await server.start();
  for (const { page } of [ada, bob]) {
    await until(page, () => syncwatch.status === "online" && syncwatch.participants.size === 2);
    assert.equal(await page.locator("#banner").textContent(), "");
    await row(page, "Ada").getByText("owner", { exact: true }).waitFor();
  }
  // Chromium reports each refused connection; nothing else may have gone wrong.
  const unexpected = [...ada.complaints, ...bob.complaints].filter((text) => !/^WebSocket connection to .* failed/.test(text));
  assert.deepEqual(unexpected, []);
});

/** Serves two minutes of a tone, with the ranges a browser needs to seek. */
async function serveTone(t) {
  const [rate, seconds] = [8000, 120];
  const wav = Buffer.alloc(44 + rate * seconds, 128);
  wav.write("RIFF");
  wav.writeUInt32LE(36 + rate * seconds, 4);
  wav.write("WAVEfmt ", 8);
  for (const [value, offset] of [[16, 16], [rate, 24], [rate, 28], [rate * seconds, 40]]) wav.writeUInt32LE(value, offset);
  for (const [value, offset] of [[1, 20], [1, 22], [1, 32], [8, 34]]) wav.writeUInt16LE(value, offset);
  wav.write("data", 36);
  const server = http.createServer((request, response) => {
    const [, from = 0, to] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "bytes=0-") ?? [];
    const part = wav.subarray(Number(from), to ? Number(to) + 1 : wav.length);
    response.writeHead(206, {
      "Content-Type": "audio/wav",
      "Accept-Ranges": "bytes",
      "Content-Length": part.length,
      "Content-Range": `bytes ${from}-${Number(from) + part.length - 1}/${wav.length}`,
    });
    response.end(part);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}/tone.wav`;
}
