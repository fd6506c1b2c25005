import assert from 'node:assert/strict';
import { test } from 'node:test';
import { filmForRoom, resolveFilm } from '../client/film-address.js';

test('a film of the server is told by its path, and loaded from the base that each client uses', () => {
  assert.equal(filmForRoom('http://localhost:4001/media/film.webm', 'http://localhost:4001'), '/media/film.webm');
  assert.equal(resolveFilm('/media/film.webm', 'https://192.168.1.5:4433'), 'https://192.168.1.5:4433/media/film.webm');
  for (const server of ['https://a.example/watch', 'https://a.example/watch/']) {
    assert.equal(filmForRoom('https://a.example/watch/media/film.webm?x=1', server), '/media/film.webm?x=1');
    assert.equal(resolveFilm('/media/film.webm', server), 'https://a.example/watch/media/film.webm');
  }
});

test('a film from elsewhere keeps its address', () => {
  const server = 'https://a.example';
  for (const url of ['https://b.example/media/film.webm', 'https://a.example/films/one.webm', 'https://a.example.evil.example/media/x']) {
    assert.equal(filmForRoom(url, server), url);
    assert.equal(resolveFilm(url, server), url);
  }
  assert.equal(resolveFilm(null, server), null);
});

test('a path that looks like another host stays on the server', () => {
  assert.equal(new URL(String(resolveFilm('//evil.example/media/x', 'https://a.example'))).host, 'a.example');
});
