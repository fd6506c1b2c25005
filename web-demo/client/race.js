/**
 * Opens the first transport that works. The later ones get their start when the one before has failed, or has had its
 * head start: WebTransport is the better line, but a network that eats UDP must cost a viewer a second, not a timeout.
 *
 * @typedef {import('./transports.js').Transport} Transport
 */
const HEAD_START_MS = 1000;
const GIVE_UP_MS = 10_000;

/**
 * @param {(() => Transport)[]} openers in order of preference
 * @param {import('./env.js').Env} env
 * @param {number} [withinMs]
 * @returns {{winner: Promise<Transport>, failed: Set<number>, cancel: () => void}}
 *   `failed`: indices of the openers that failed before there was a winner
 */
export function openFastest(openers, env, withinMs = GIVE_UP_MS) {
  /** @type {Set<Transport>} */
  const opening = new Set();
  /** @type {any[]} */
  const timers = [];
  let started = 0;
  /** @type {Set<number>} */
  const failed = new Set();
  let over = false;
  let cancel = () => {};

  const winner = /** @type {Promise<Transport>} */ (
    new Promise((resolve, reject) => {
      const finish = () => {
        over = true;
        for (const timer of timers) env.clearTimeout(timer);
        for (const transport of opening) transport.close(1000, 'another transport was faster');
        opening.clear();
      };
      const fail = (/** @type {unknown} */ error) => {
        if (over) return;
        finish();
        reject(error);
      };
      const onFailure = (/** @type {number} */ place, /** @type {unknown} */ error) => {
        if (over) return; // A loser that was told to close is no failure.
        failed.add(place);
        if (failed.size === openers.length) fail(error);
        else if (failed.size === started) startNext();
      };

      const startNext = () => {
        if (over || started === openers.length) return;
        const place = started;
        const open = openers[place];
        started += 1;
        if (started < openers.length) timers.push(env.setTimeout(startNextAfter(started), HEAD_START_MS));
        /** @type {Transport} */
        let transport;
        try {
          transport = open();
        } catch (error) {
          onFailure(place, error); // A constructor may refuse: a URL, an option, a policy of the page.
          return;
        }
        opening.add(transport);
        transport.opened.then(
          () => {
            if (over) return;
            opening.delete(transport);
            finish();
            resolve(transport);
          },
          (error) => {
            opening.delete(transport);
            onFailure(place, error);
          },
        );
      };
      // A head start that ran out is void when a failure has started the next one already.
      const startNextAfter = (/** @type {number} */ count) => () => {
        if (started === count) startNext();
      };

      cancel = () => fail(new Error('cancelled'));
      timers.push(env.setTimeout(() => fail(new Error('no transport opened in time')), withinMs));
      if (openers.length === 0) fail(new Error('no transport is left to try'));
      startNext();
    })
  );
  return { winner, failed, cancel: () => cancel() };
}
