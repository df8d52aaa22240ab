// Waiting with a deadline. Every wait of the suite goes through here, so that nothing hangs and every failure says what it waited for.

/** How long a thing that should happen at once may take on a busy machine. */
export const SOON_MS = 10_000;

/** Settles as `promise` does, or rejects after `ms` with a message that names `what`. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within ${ms} ms: ${describe(what)}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Repeats `probe` until it answers something truthy; the answer is the result. */
export async function until(what, probe, ms = SOON_MS) {
  const end = Date.now() + ms;
  let last;
  for (;;) {
    try {
      const answer = await probe();
      if (answer) return answer;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`never came true within ${ms} ms: ${describe(what)} (last: ${last})`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A promise with its two handles outside. */
export function defer() {
  const deferred = {};
  deferred.promise = new Promise((resolve, reject) => Object.assign(deferred, { resolve, reject }));
  return deferred;
}

function describe(what) {
  return typeof what === 'function' ? what() : what;
}
