// The shop's billing in another language: Node's own HTTP server. Port in $PORT.
// GET /invoices lists, POST /invoices writes one, /admin is what nobody may see.
import http from "node:http";

const invoices = [];

function answer(response, status, content) {
  const body = JSON.stringify(content) + "\n";
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}

const server = http.createServer((request, response) => {
  if (request.url === "/invoices" && request.method === "POST") {
    let text = "";
    request.on("data", (piece) => (text += piece));
    request.on("end", () => {
      const invoice = { number: invoices.length + 1, written_in: "node", ...JSON.parse(text) };
      invoices.push(invoice);
      answer(response, 201, invoice);
    });
  } else if (request.url === "/invoices") {
    answer(response, 200, { invoices });
  } else if (request.url === "/admin") {
    answer(response, 200, { secret: "if you can read this, policy failed" });
  } else {
    answer(response, 404, { error: "no such page" });
  }
});
server.listen(Number(process.env.PORT), "127.0.0.1");
