// Runs the suites of `test/`, a few at a time, and ends with a line that counts them.
//
//   SYNCWATCH_BIN=path/to/syncwatch node run.mjs [name of a suite...]
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';

/** Scenario files at once; each has a server and some clients, on a machine that may have two cores. */
const FILES_AT_ONCE = Number(process.env.SUITE_FILES_AT_ONCE ?? 3);

const folder = fileURLToPath(new URL('./test/', import.meta.url));
const words = process.argv.slice(2);
const files = readdirSync(folder)
  .filter((name) => name.endsWith('.test.mjs') && (words.length === 0 || words.includes(name.replace('.test.mjs', ''))))
  .map((name) => folder + name);
if (files.length === 0) {
  console.error(`no suite is called ${words.join(' or ')}`);
  process.exit(1);
}

let passed = 0;
let failed = 0;
const report = run({ files, concurrency: FILES_AT_ONCE, timeout: 600_000 });
report.on('test:pass', ({ details, skip }) => {
  if (details.type === 'suite') return;
  if (skip === undefined) passed += 1;
  else failed += 1; // nothing is skipped here: what is not tested is not promised
});
report.on('test:fail', ({ details }) => {
  failed += details.type === 'suite' && details.error?.failureType === 'subtestsFailed' ? 0 : 1;
});
report.on('end', () => {
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
});
report.compose(new spec()).pipe(process.stdout);
