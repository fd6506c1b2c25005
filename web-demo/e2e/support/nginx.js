/** A real nginx of the test's own, killed by the kernel when this process dies. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './cluster.js';
import { until } from './until.js';

const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;

export class Nginx {
  port = 0;

  /**
   * @param {import('node:test').TestContext} t
   * @param {(port: number) => Promise<string>} servers  the content of `http { … }`
   */
  static async for(t, servers) {
    const nginx = new Nginx();
    nginx.port = await freePort();
    const dir = await mkdtemp(join(tmpdir(), 'tandem-e2e-nginx-'));
    const config = join(dir, 'nginx.conf');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${dir}/${kind};`).join(' ');
    await writeFile(config, `daemon off; master_process off; pid ${dir}/pid; error_log stderr warn;
events {}
http { access_log off; ${temporary}
${await servers(nginx.port)}
}`);
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'nginx', '-p', dir, '-c', config], { env: { ...process.env, PATH }, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk) => (said += chunk));
    const gone = new Promise((resolve) => child.once('exit', resolve));
    t.after(async () => {
      child.kill('SIGKILL');
      await gone;
      await rm(dir, { recursive: true, force: true });
    });
    await until('nginx listening (install it with: apt-get install nginx-light)', () => listens(nginx.port), { show: async () => said });
    return nginx;
  }
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true); });
    socket.once('error', () => resolve(false));
  });
}
