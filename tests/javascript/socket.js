// Talks to a feed over a WebSocket, and comes back by itself; a line for all it is told. It runs in a page,
// and in Node.js with `ws`. It acknowledges each record, and writes a record for each tenth.
function talk(WebSocket, url, name) {
  let cursor = 'from=earliest', written = 0;
  const tell = (word, told) => console.log(word + ' ' + JSON.stringify(told));
  const connect = () => {
    const socket = new WebSocket(url + cursor, 'kafka-upstream.json.v1');
    const say = frame => socket.send(JSON.stringify(frame));
    socket.onopen = () => console.log('opened ' + socket.protocol);
    socket.onerror = () => {};
    socket.onclose = it => {
      tell('closed', it.code);
      setTimeout(connect, 200);
    };
    socket.onmessage = it => {
      const frame = JSON.parse(it.data);
      if (frame.type === 'message') {
        cursor = 'cursor=' + frame.id;
        tell('event', ['message', frame.content, frame.id]);
        const {topic, partition, offset} = frame.metadata;
        say({type: 'ack', topic, partition, offset});
        if (frame.content.split(' ')[1].endsWith('0')) {
          say({type: 'produce', ref: written, content: `${name} ${written}`});
          written += 1;
        }
      } else if (frame.type === 'produced') {
        tell('produced', [frame.outcome, frame.ref]);
      } else if (frame.type === 'goaway') {
        tell('event', ['goaway', frame.reason, cursor]);
      } else if (['gap', 'error'].includes(frame.type)) {
        tell('event', [frame.type, it.data, cursor]);
      }
    };
  };
  connect();
}
if (typeof process === 'object') {
  const [module, url, name] = process.argv.slice(2);
  talk(require(module).WebSocket, url, name);
}
