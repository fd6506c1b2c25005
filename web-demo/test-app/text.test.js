import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { closeStory, sentence } from '../app/errors.js';
import { awaySeconds, clockText, digestText, driftTone, filmTitle, nameList, signedMs, spokenTime } from '../app/format.js';
import { readFragment, roomFragment } from '../app/fragment.js';
import { hueOf, initials, isRoomId, suggestRoomId, tidyRoomId } from '../app/identity.js';
import { railPlace } from '../app/rail.js';
import { authority } from '../app/source.js';
import { sentenceFor } from '../app/trouble.js';

test('every error code of the protocol has a sentence of its own', () => {
  const protocol = readFileSync(new URL('../../docs/PROTOCOL.md', import.meta.url), 'utf8');
  const section = protocol.slice(protocol.indexOf('## 5. Error codes'), protocol.indexOf('## 6.'));
  const codes = [...section.matchAll(/^\| ([A-Z_]+) \|/gm)].map((match) => match[1]);
  assert.ok(codes.length > 20);
  for (const code of codes) assert.doesNotMatch(sentence({ code, message: 'x' }), /did not work/, code);
});

test('an unknown error still says what the server said', () => {
  assert.equal(sentence({ code: 'NEW_ONE', message: 'the moon is full' }), 'It did not work: the moon is full');
  assert.equal(sentence(undefined), 'It did not work.');
});

test('a throttled PIN says when to try again', () => {
  assert.match(sentence({ code: 'PIN_THROTTLED', retryAfterMs: 12_100 }), /13 s/);
});

test('a banned member is not offered to join again, a kicked one is', () => {
  assert.equal(closeStory({ code: 4007 }).again, false);
  assert.equal(closeStory({ code: 4006 }).again, true);
  assert.equal(closeStory({ code: 'USER_BANNED', reason: 'x' }).again, false);
});

test('a room, a PIN and an owner survive the way through a link', () => {
  const owner = 'A'.repeat(42) + '_';
  const rooms = ['friday', 'a.b:c@d-e_1', 'x', 'film night', 'кино', '映画の夜', '🍿 popcorn 👨‍👩‍👧', 'a+b & c=d #1 ?', '100 %'];
  for (const room of rooms) {
    for (const pin of ['', '4711', 'p&n=#+ %é']) {
      const back = readFragment(roomFragment({ room, pin, owner }));
      assert.deepEqual([back.room, back.pin, back.owner], [room, pin, owner]);
    }
  }
  assert.equal(readFragment('#room=r&owner=short').owner, '', 'no hash');
});

test("a test driver's options are read, nonsense is not", () => {
  const read = readFragment('#room=r&name=Ann&transport=websocket&autojoin=1');
  assert.deepEqual(read, { room: 'r', pin: '', name: 'Ann', owner: '', over: false, damaged: false, transport: 'websocket', autojoin: true });
  assert.equal(readFragment('#transport=pigeon').transport, null);
  assert.equal(readFragment('#room=r&over=1').over, true);
  const cut = readFragment('#room=%E0%A4%A&pin=4711');
  assert.deepEqual([cut.room, cut.damaged], ['', true], 'half a character');
});

test('a room name is any words that can be seen, and equal ones are spelled equally', () => {
  for (const room of ['friday', 'film night', 'кино', '🍿', '👨‍👩‍👧'.repeat(64), 'e\u0301'.normalize('NFC')]) assert.ok(isRoomId(room), room);
  for (const room of ['', 'x'.repeat(65), '\u200b', '\u0000', 'a\u0007']) assert.ok(!isRoomId(room), JSON.stringify(room));
  for (const char of '/\\#?%<>{}"`|^&') assert.ok(!isRoomId(`a${char}b`), char);
  assert.equal(tidyRoomId('  Cafe\u0301 \t night\n'), 'Caf\u00e9 night');
});

test('suggested rooms are ids that the server takes', () => {
  for (let i = 0; i < 50; i++) assert.ok(isRoomId(suggestRoomId()));
});

test("a member's colour depends on the id alone and spreads", () => {
  assert.equal(hueOf('u-1'), hueOf('u-1'));
  const hues = new Set(Array.from({ length: 60 }, (_, i) => hueOf(`u-${i}`)));
  assert.ok(hues.size > 15, `${hues.size} hues for 60 ids`);
});

test('initials take whole characters', () => {
  assert.equal(initials('Ann'), 'A');
  assert.equal(initials(' Bob  de Okafor '), 'BO');
  assert.equal(initials('🦦 otter'), '🦦o');
});

test('a guest is told who has the controls, and when an absent host is followed by somebody', () => {
  const guest = { canControl: false, isHost: false, guestControl: false, host: 'Ann' };
  assert.equal(authority(guest), 'Only Ann can play, pause and seek. As the host, Ann can also let everyone do it.');
  assert.match(authority({ ...guest, away: 24, alone: true }), /^Ann hosts, but is away\..* within 24 s, you host the room\.$/);
  assert.match(authority({ ...guest, away: 24 }), /somebody here becomes host\.$/);
});

test('an absent member is away for as long as the place is kept, and no number is made up beyond it', () => {
  assert.equal(awaySeconds({ connected: true, graceUntil: null }, 0), null);
  assert.equal(awaySeconds({ connected: false, graceUntil: 10_000 }, 500), 10);
  assert.equal(awaySeconds({ connected: false, graceUntil: null }, 500), null);
  assert.equal(awaySeconds({ connected: false, graceUntil: 4 * 3600_000 }, 0), null);
});

test('a large room reads in one line, which never claims more than is known', () => {
  const digest = { watching: 1204, measured: 1180, inStep: 1177, buffering: 3 };
  assert.equal(digestText(digest), '1,204 watching · 99 % in step · 3 buffering');
  assert.equal(digestText({ ...digest, inStep: 1180, buffering: 0 }), '1,204 watching · 100 % in step');
  assert.equal(digestText({ ...digest, measured: 0, inStep: 0, buffering: 0 }), '1,204 watching');
});

test('times and drifts read well', () => {
  assert.equal(clockText(0), '0:00');
  assert.equal(clockText(3725.9), '1:02:05');
  assert.equal(clockText(NaN), '0:00');
  assert.equal(spokenTime(125), '2 min 5 s');
  assert.equal(signedMs(-3.14), '−3.1 ms');
  assert.equal(signedMs(0.01), '±0 ms');
  assert.equal(signedMs(1500), '+1.5 s');
  assert.equal(signedMs(null), '–');
  assert.deepEqual([3, -39, 41, 260, null].map(driftTone), ['good', 'good', 'warn', 'bad', 'idle']);
  assert.equal(nameList(['Ann', 'Bob', 'Cleo', 'Dan']), 'Ann, Bob and 2 more');
  assert.equal(filmTitle('https://example.org/a/My%20film.webm?x=1'), 'My film.webm');
});

test('the rail keeps sign and order and ends at its edge', () => {
  assert.equal(railPlace(0), 0);
  assert.ok(railPlace(-40) < 0 && railPlace(40) < railPlace(250));
  assert.equal(railPlace(90_000), 1);
});

test('who can’t play the film is named, with the reason where it is one', () => {
  const member = (username, playerReason) => /** @type {any} */ ({ username, playerReason, player: 'failed' });
  const plain = (text) => text.replace(/[\u2068\u2069]/g, '');
  assert.equal(sentenceFor([]), '');
  assert.match(plain(sentenceFor([member('Bob', 'decode')])), /^Bob can’t play this film: their browser can’t decode it\./);
  assert.match(plain(sentenceFor([member('Bob', 'decode'), member('Cid', 'network')])), /^Bob and Cid can’t play this film\./);
  assert.match(plain(sentenceFor([member('Bob', 'a reason of another client')])), /^Bob can’t play this film\./);
  const lagging = { ...member('Cid', 'stalls'), player: 'ready' };
  assert.equal(plain(sentenceFor([lagging])), 'Cid can’t keep up: the film reaches them too slowly. The others don’t wait for them.');
  assert.match(plain(sentenceFor([member('Bob', 'decode'), lagging])), /^Bob can’t play this film: .*\. Cid can’t keep up: .*\. The others/);
  assert.equal(sentenceFor([{ ...member('Cid', null), player: 'ready' }]), '');
});
