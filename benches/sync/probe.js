/**
 * Runs in the page, beside the player: records what it shows and when, on the machine's clock. It reads nothing of
 * syncVideo but `stats()`, and steers nothing.
 */
window.tandemProbe = async function tandemProbe({ readFrames }) {
  const { readFrame } = readFrames ? await import('/app/framecode.js') : { readFrame: null };
  const { room, sync } = window.tandem;
  const video = document.querySelector('#video');

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
  const offsets = [wallOffset(25)];
  const offset = offsets[0];
  const wall = (local) => local + offset;

  const record = { joined: wall(performance.now()), frames: [], vectors: [], events: [], clock: [], codes: [], late: [], stats: null, transport: room.transport };
  const vector = (cause) => {
    const { position, rate, playing, at, seq } = room.playback;
    record.vectors.push({ position, rate, playing, at, seq, cause, heard: wall(performance.now()), gate: room.gate !== null });
  };
  vector('start');
  room.addEventListener('playback', ({ detail }) => vector(detail.cause));
  for (const type of ['play', 'playing', 'pause', 'seeking', 'seeked', 'ratechange', 'waiting']) {
    video.addEventListener(type, () => {
      record.events.push({ type, at: wall(performance.now()), position: video.currentTime, rate: video.playbackRate });
    });
  }
  // The state changes with the call; the event is a task that comes later.
  for (const act of ['pause', 'play']) {
    const original = video[act];
    video[act] = function timed() {
      record.events.push({ type: `${act}()`, at: wall(performance.now()), position: video.currentTime, rate: video.playbackRate });
      return original.call(video);
    };
  }
  let count = 0;
  const onFrame = (now, { mediaTime, expectedDisplayTime }) => {
    // [when it is on the screen, which moment of the film it is, what the player's own clock says at this instant]
    record.frames.push([wall(expectedDisplayTime), mediaTime, wall(performance.now()), video.currentTime]);
    if (readFrame && ++count % 50 === 0) {
      const frame = readFrame(video);
      if (frame !== null) record.codes.push([mediaTime, frame]);
    }
    video.requestVideoFrameCallback(onFrame);
  };
  video.requestVideoFrameCallback(onFrame);

  const clockTimer = setInterval(() => {
    const now = performance.now();
    record.clock.push([wall(now), room.clock.roomTime(now) - wall(now), room.clock.error, room.clock.rtt]);
  }, 500);
  let due = performance.now() + 100;
  const lateTimer = setInterval(() => {
    const now = performance.now();
    record.late.push(Math.max(0, now - due));
    due = now + 100;
  }, 100);

  window.tandemRecord = () => {
    clearInterval(clockTimer);
    clearInterval(lateTimer);
    offsets.push(wallOffset(10));
    const { droppedVideoFrames, totalVideoFrames } = video.getVideoPlaybackQuality();
    return { ...record, offsets, droppedVideoFrames, totalVideoFrames, stats: sync.stats(), ended: wall(performance.now()) };
  };
};
