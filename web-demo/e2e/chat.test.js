import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

async function annAndBob(t, about) {
  const room = roomName(about);
  return [
    await browser.join(t, { server, room, name: 'Ann' }),
    await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' }),
  ];
}

async function say(tab, text) {
  await tab.page.fill('#chat-input', text);
  await tab.page.press('#chat-input', 'Enter');
}

const chatSays = (text) => document.querySelector('#chat-list').innerText.includes(text);

describe('the chat', () => {
  test('goes both ways', async (t) => {
    const [ann, bob] = await annAndBob(t, 'chat');
    await say(ann, 'popcorn?');
    for (const tab of [ann, bob]) await tab.until('the question', chatSays, 'popcorn?');
    await say(bob, 'always 🍿');
    for (const tab of [ann, bob]) await tab.until('the answer', chatSays, 'always 🍿');
  });

  test('shows hostile text as text', async (t) => {
    const [ann, bob] = await annAndBob(t, 'hostile');
    const hostile = '<img src=x onerror="window.owned=1"><script>window.owned=1</script><a href="javascript:window.owned=1">x</a> & "quotes" \'\'';
    await say(ann, hostile);
    for (const tab of [ann, bob]) {
      await tab.until('the text', chatSays, hostile);
      assert.equal(await tab.page.locator('#chat-list img, #chat-list script, #chat-list a[href^="javascript"]').count(), 0);
      assert.equal(await tab.page.evaluate(() => window.owned), undefined);
    }
  });

  test('counts what was not read', async (t) => {
    const [ann, bob] = await annAndBob(t, 'unread');
    await bob.choose('stats');
    await say(ann, 'one');
    await say(ann, 'two');
    await bob.until('two unread', () => document.querySelector('#chat-unread').innerText === '2');
    await bob.choose('chat');
    await bob.until('none unread', () => document.querySelector('#chat-unread').hidden);
  });

  test('brings what was said while the line was down, each line once', async (t) => {
    const room = roomName('missed');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.person(t, { name: 'Bob', allowed: [/api\/transports/] });
    const lines = [];
    await bob.page.routeWebSocket(/\/ws$/, (line) => {
      const onward = line.connectToServer();
      lines.push({ cut: () => Promise.all([onward.close({ code: 4004, reason: 'cut' }), line.close({ code: 4004, reason: 'cut' })]) });
    });
    await bob.enter({ origin: server.origin, room, transport: 'websocket' });
    await say(ann, 'before');
    await bob.until('the first', chatSays, 'before');

    await bob.page.route('**/api/transports', (route) => route.abort());
    await lines[0].cut();
    await ann.until('Bob being away', () => window.tandem.room.members.some(({ connected }) => !connected));
    await say(ann, 'meanwhile');
    await ann.until('her own line', chatSays, 'meanwhile');
    assert.equal((await bob.room()).state, 'reconnecting');
    await bob.page.unroute('**/api/transports');
    await bob.until('the second', chatSays, 'meanwhile');
    const said = await bob.page.locator('#chat-list').innerText();
    for (const line of ['before', 'meanwhile']) assert.equal(said.split(line).length, 2, `${line}, once`);
  });
});

describe('the raw message box', () => {
  test('shows the ERROR for an unknown type', async (t) => {
    const [ann] = await annAndBob(t, 'raw');
    await ann.choose('log');
    await ann.page.fill('#raw-text', '{"type": "NO_SUCH_TYPE"}');
    await ann.page.locator('#raw-form button[type=submit]').click();
    await ann.until('the ERROR', () => [...document.querySelectorAll('#log-list .log-error')].some((row) => row.innerText.includes('UNKNOWN_TYPE')));
  });

  test('sends a message as it is, and says what is not JSON', async (t) => {
    const [ann, bob] = await annAndBob(t, 'rawchat');
    await ann.choose('log');
    await ann.page.fill('#raw-text', '{"type": "CHAT", "text": "by hand"}');
    await ann.page.locator('#raw-form button[type=submit]').click();
    await bob.until('the message', chatSays, 'by hand');
    await ann.page.fill('#raw-text', '{nonsense');
    await ann.page.locator('#raw-form button[type=submit]').click();
    await ann.until('the complaint', () => document.querySelector('#raw-note').innerText.startsWith('Not JSON'));
  });

  test("doesn't show secrets in the log", async (t) => {
    const ann = await browser.join(t, { server, room: roomName('secret'), name: 'Ann', pin: 'swordfish' });
    await ann.choose('log');
    await ann.until('the JOIN', () => document.querySelector('#log-list').innerText.includes('JOIN'));
    assert.ok(!(await ann.page.locator('#log-list').innerText()).includes('swordfish'));
    const token = await ann.page.evaluate(() => JSON.stringify({ ...localStorage }).match(/resumeToken\\*":\\*"([^"\\]+)/)?.[1]);
    assert.ok(token, 'a token is kept');
    assert.ok(!(await ann.page.content()).includes(token));
  });
});
