// The image's health check: 0 when the node answers on its HTTP port, 1 with a line when it doesn't. `STARLING_HEALTH_URL` where it listens elsewhere.
import { get } from 'node:http';

const url = process.env.STARLING_HEALTH_URL || 'http://127.0.0.1:2080/health/live';

function end(isHealthy, line) {
  process.stdout.write(`${line}\n`);
  process.exitCode = isHealthy ? 0 : 1;
}

const request = get(url, { agent: false, timeout: 4_000 }, (response) => {
  response.resume();
  end(response.statusCode === 200, `${url}: ${response.statusCode}`);
});
request.on('timeout', () => request.destroy(new Error('no answer within 4 s')));
request.on('error', (error) => end(false, `${url}: ${error.message}`));
