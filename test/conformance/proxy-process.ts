/** A proxy of codec and pool alone as a process of its own, so that its memory can be read: `node proxy-process.ts UPSTREAM_PORT`. Prints its port. */
import { startProxy } from './harness.ts';

const proxy = await startProxy(Number(process.argv[2]), { settings: { upgradeTypes: ['websocket'] } });
process.stdout.write(`${proxy.port}\n`);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
