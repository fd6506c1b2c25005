/**
 * Runs in the page before its scripts: records what the player shows and when, on the machine's clock. It reads nothing
 * of syncVideo but `stats()`, and steers nothing.
 *
 * Timers are wrapped, to know how late the browser ran the one that orders something: that part of a command's lateness
 * is the scheduler's (the page's own thread was busy, or the processor was), not the client's decision.
 */
(() => {
  /**
   * Wall time − performance.now(). Date.now() is whole milliseconds, cut off: the difference is largest right after it
   * has ticked. Date is read first, so that an interruption between the two can't make it larger than it is.
   */
  function wallOffset(spinMs) {
    let best = -Infinity;
    const end = performance.now() + spinMs;
    for (;;) {
      const wall = Date.now();
      const now = performance.now();
      best = Math.max(best, wall - now);
      if (now > end) return best;
    }
  }
  let offset = 0;
  const wallNow = () => performance.now() + offset;

  /** How late the timer is whose callback runs at the moment, ms; 0 outside of timers. */
  let timerLate = 0;
  const setTimer = window.setTimeout;
  window.setTimeout = (fn, ms = 0, ...args) => {
    if (typeof fn !== 'function') return setTimer(fn, ms, ...args);
    const due = performance.now() + Math.max(0, ms);
    return setTimer(() => {
      timerLate = Math.max(0, performance.now() - due);
      try {
        fn(...args);
      } finally {
        timerLate = 0;
      }
    }, ms);
  };

  let app;
  Object.defineProperty(window, 'tandem', {
    configurable: true,
    get: () => app,
    set(value) {
      app = value;
      if (value) begin(value);
    },
  });

  function begin({ room, sync }) {
    const joinedAt = performance.now();
    const offsets = [wallOffset(25)];
    offset = offsets[0];
    const video = document.querySelector('#video');
    const record = { joined: joinedAt + offset, frames: [], vectors: [], events: [], clock: [], codes: [], late: [], sent: [] };

    const vector = (cause, committed = null) => {
      const { position, rate, playing, at, seq } = room.playback;
      record.vectors.push({ position, rate, playing, at, seq, cause, committed, heard: wallNow(), gate: room.gate !== null });
    };
    vector('start');
    room.addEventListener('playback', ({ detail }) => vector(detail.cause, detail.message?.timestamp ?? null));

    /** A player that was moved starts with an empty pipeline, and the client counts on another latency. */
    let fresh = true;
    const note = (type, more = {}) => record.events.push({ type, at: wallNow(), position: video.currentTime, rate: video.playbackRate, ...more });
    for (const type of ['play', 'playing', 'pause', 'seeking', 'seeked', 'ratechange', 'waiting']) {
      video.addEventListener(type, () => {
        if (type === 'seeking') fresh = true;
        note(type);
      });
    }
    // The state changes with the call; the event is a task that comes later.
    const { play, pause } = video;
    video.play = function timedPlay() {
      const { startLatencyMs, resumeLatencyMs } = sync.stats();
      note('play()', { timerLate, counted: fresh ? startLatencyMs : resumeLatencyMs });
      const started = play.call(video);
      started.then(() => (fresh = false), () => {});
      return started;
    };
    video.pause = function timedPause() {
      note('pause()', { timerLate });
      return pause.call(video);
    };

    let readFrame = null;
    let count = 0;
    const onFrame = (now, { mediaTime, expectedDisplayTime }) => {
      // [when it is on the screen, which moment of the film it is, what the player's own clock says at this instant]
      record.frames.push([expectedDisplayTime + offset, mediaTime, wallNow(), video.currentTime]);
      if (readFrame && ++count % 50 === 0) {
        const frame = readFrame(video);
        if (frame !== null) record.codes.push([mediaTime, frame]);
      }
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
    void import('/app/framecode.js').then((module) => (readFrame = module.readFrame));

    const clockTimer = setInterval(() => {
      const now = performance.now();
      record.clock.push([now + offset, room.clock.roomTime(now) - (now + offset), room.clock.error, room.clock.rtt]);
    }, 500);
    let due = performance.now() + 100;
    const lateTimer = setInterval(() => {
      const now = performance.now();
      record.late.push(Math.max(0, now - due));
      due = now + 100;
    }, 100);

    window.tandemProbe = {
      /** Gives a command; resolves when it is acknowledged. */
      async command(name, args) {
        const sent = { name, at: wallNow(), seq: null, acked: null };
        record.sent.push(sent);
        const { seq } = await room[name](...args);
        sent.acked = wallNow();
        sent.seq = seq;
      },
      /** All of the record, as text: Firefox's driver is slow with large values. */
      take() {
        clearInterval(clockTimer);
        clearInterval(lateTimer);
        offsets.push(wallOffset(10));
        const { droppedVideoFrames, totalVideoFrames } = video.getVideoPlaybackQuality();
        return JSON.stringify({ ...record, offsets, droppedVideoFrames, totalVideoFrames, stats: sync.stats(), ended: wallNow() });
      },
    };
  }
})();
