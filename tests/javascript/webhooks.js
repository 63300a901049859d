// Verifies requests of its input, a JSON object a line, with the library of Standard Webhooks.
const {Webhook} = require('standardwebhooks');

const webhook = new Webhook(process.argv[2]);
const lines = require('fs').readFileSync(0, 'utf8').trimEnd().split('\n');
for (const {body, headers} of lines.map(JSON.parse)) webhook.verify(body, headers);
console.log(lines.length);
