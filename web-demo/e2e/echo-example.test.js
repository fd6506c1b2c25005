/** The example of crates/tandem-webtransport: what it prints works in a browser's console. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { FLAGS } from './support/browser.js';

const TARGET = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../target', import.meta.url));

/** A page from localhost: WebTransport is for secure contexts only. */
async function emptyPage(t) {
  const server = createServer((_, response) => response.setHeader('content-type', 'text/html').end('<!doctype html>'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return `http://localhost:${server.address().port}/`;
}

test('the echo example answers the snippet that it prints, in Chromium', { timeout: 60_000 }, async (t) => {
  const echo = spawn(`${TARGET}/debug/examples/echo`, ['0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => echo.kill());
  let snippet = '';
  for await (const chunk of echo.stdout) {
    snippet += chunk;
    if (snippet.includes('})();')) break;
  }
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS });
  t.after(() => browser.close());
  const page = await browser.newPage();
  const lines = [];
  page.on('console', (message) => lines.push(message.text()));
  await page.goto(await emptyPage(t));
  await page.evaluate(snippet);
  assert.deepEqual(lines, ['message: hello', 'datagram: hello', 'closed: 7']);
});
