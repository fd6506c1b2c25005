/** The Web Locks of one browser; a page loses its locks when it is closed. */
export class FakeLocks {
  /** name → the page that holds it @type {Map<string, {page: object, end: () => void}>} */
  #held = new Map();
  /** @type {{name: string, grant: () => void}[]} */
  #waiting = [];

  page() {
    const locks = this;
    const page = {
      held: new Set(),
      async request(name, { ifAvailable, signal }, callback) {
        if (locks.#held.has(name)) {
          if (ifAvailable) return callback(null);
          await new Promise((resolve, reject) => {
            locks.#waiting.push({ name, grant: resolve });
            signal?.addEventListener('abort', () => reject(signal.reason));
          });
        }
        const ended = new Promise((resolve) => {
          locks.#held.set(name, { page, end: resolve });
          page.held.add(name);
        });
        await Promise.race([callback({ name }), ended]);
        locks.#release(name);
        page.held.delete(name);
      },
      close() {
        for (const name of [...page.held]) {
          locks.#held.get(name)?.end();
          locks.#release(name);
          page.held.delete(name);
        }
      },
    };
    return page;
  }

  #release(name) {
    this.#held.delete(name);
    const next = this.#waiting.findIndex((waiting) => waiting.name === name);
    if (next >= 0) this.#waiting.splice(next, 1)[0].grant();
  }
}
