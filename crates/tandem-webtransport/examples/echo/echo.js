// Paste this into the console of any page that came by https: or from localhost.
(async () => {
  const value = Uint8Array.from(atob('HASH'), (c) => c.charCodeAt(0));
  const transport = new WebTransport('https://127.0.0.1:PORT/echo', {
    serverCertificateHashes: [{ algorithm: 'sha-256', value }],
  });
  await transport.ready;
  const hello = new TextEncoder().encode('hello');
  const text = (bytes) => new TextDecoder().decode(bytes);

  const message = new Uint8Array(4 + hello.length); // four bytes of length, then as many bytes
  new DataView(message.buffer).setUint32(0, hello.length);
  message.set(hello, 4);
  const stream = await transport.createBidirectionalStream();
  await stream.writable.getWriter().write(message);
  console.log('message:', text((await stream.readable.getReader().read()).value.subarray(4)));

  const { datagrams } = transport;
  await (datagrams.createWritable?.() ?? datagrams.writable).getWriter().write(hello);
  console.log('datagram:', text((await datagrams.readable.getReader().read()).value));

  transport.close({ closeCode: 7, reason: 'bye' });
  console.log('closed:', (await transport.closed).closeCode);
})();
