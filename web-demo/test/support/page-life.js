/**
 * The life of one page over the clock that it shares with everybody else: a hidden tab whose timers come once a second
 * or once a minute, a process that is stopped and goes on. What arrives for a stopped page waits for it.
 */
export class PageLife {
  #env;
  /** @type {Map<number, {at: number, fn: () => void, handle: any}>} */
  #timers = new Map();
  #nextId = 1;
  #every = 0;
  #stopped = false;
  /** What the event loop runs when it runs again. @type {(() => void)[]} */
  #late = [];
  #mail = [];

  /**
   * @param {import('./fake-env.js').FakeEnv} env
   * @param {import('./fake-server.js').FakeServer} server that it talks to
   */
  constructor(env, server) {
    this.#env = env;
    server.toPage = (deliver) => (this.#stopped ? this.#mail.push(deliver) : deliver());
    /** For `connect`. */
    this.env = {
      ...env,
      setTimeout: (fn, ms) => {
        const [id, timer] = [this.#nextId++, { at: env.now() + Math.max(0, ms), fn, handle: null }];
        this.#timers.set(id, timer);
        this.#arm(id, timer);
        return id;
      },
      clearTimeout: (id) => {
        const timer = this.#timers.get(id);
        if (timer) env.clearTimeout(timer.handle);
        this.#timers.delete(id);
      },
    };
  }

  #arm(id, timer) {
    const at = this.#every > 0 ? Math.ceil(timer.at / this.#every) * this.#every : timer.at;
    this.#env.clearTimeout(timer.handle);
    timer.handle = this.#env.setTimeout(() => this.#due(id), at - this.#env.now());
  }

  #due(id) {
    if (this.#stopped) return this.#late.push(() => this.#due(id));
    const timer = this.#timers.get(id);
    this.#timers.delete(id);
    timer?.fn();
  }

  /** In a background tab: timers come at multiples of `every` ms. */
  hide(every = 1000) {
    this.#env.isHidden = true;
    this.throttle(every);
    this.#env.page('visibilitychange');
  }

  throttle(every) {
    this.#every = every;
    for (const [id, timer] of this.#timers) this.#arm(id, timer);
  }

  show() {
    this.#env.isHidden = false;
    this.throttle(0);
    this.#env.page('visibilitychange');
  }

  /** SIGSTOP. */
  stop() {
    this.#stopped = true;
  }

  /** SIGCONT. Which of the two a browser runs first is chance. */
  async resume({ mailFirst = false } = {}) {
    this.#stopped = false;
    const [late, mail] = [this.#late, this.#mail];
    [this.#late, this.#mail] = [[], []];
    for (const task of mailFirst ? [...mail, ...late] : [...late, ...mail]) {
      task();
      await this.#env.settle();
    }
  }
}
