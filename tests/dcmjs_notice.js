// Sends one N-CREATE or N-SET by dcmjs-dimse, told on standard input as JSON, and prints the status of the answer.
// {"sop_class", "uid", "update": false, "port", "elements": {keyword: value}}
const dimse = require('dcmjs-dimse');
const { NCreateRequest, NSetRequest } = dimse.requests;
dimse.log.setLevel('error');

const asked = JSON.parse(require('fs').readFileSync(0, 'utf-8'));
const request = new (asked.update ? NSetRequest : NCreateRequest)(asked.sop_class, asked.uid);
request.setDataset(new dimse.Dataset(asked.elements));
request.on('response', (response) => console.log(response.getStatus()));

const client = new dimse.Client();
client.addRequest(request);
client.on('networkError', (error) => {
  console.error(String(error));
  process.exit(1);
});
client.send('127.0.0.1', asked.port, 'CR1', 'DICOMNODE');
