/** nginx: one worker, keep-alive to the upstream, no access log. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startPinned } from '../process.ts';
import type { Peer, PeerStart } from './peer.ts';

export const nginx: Peer = {
  name: 'nginx',
  version: () => /nginx\/(\S+)/.exec(spawnSync('nginx', ['-v'], { encoding: 'utf8' }).stderr ?? '')?.[1],
  can: () => true,
  start: (options) => startNginx(options, serverBlock(options)),
};

/** Starts nginx with one `http` section around the given blocks. */
export async function startNginx(
  options: Pick<PeerStart, 'name' | 'core' | 'directory' | 'listenPort'>,
  blocks: string,
): ReturnType<typeof startPinned> {
  const home = join(options.directory, `${options.name}-${options.listenPort}`);
  mkdirSync(home, { recursive: true });
  const file = join(home, 'nginx.conf');
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${home}/pid; error_log ${home}/error.log error; worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; client_max_body_size 0;
  client_body_temp_path ${home}/body; proxy_temp_path ${home}/proxy; fastcgi_temp_path ${home}/f; uwsgi_temp_path ${home}/u; scgi_temp_path ${home}/s;
  ${blocks}
}
`,
  );
  return startPinned({ name: options.name, core: options.core, command: ['nginx', '-p', home, '-c', file], ports: [options.listenPort] });
}

function serverBlock({ hop, listenPort, upstreamPort }: PeerStart): string {
  const accept =
    hop.kind === 'terminate'
      ? `ssl_certificate ${hop.tls.chain}; ssl_certificate_key ${hop.tls.key}; ssl_client_certificate ${hop.tls.roots}; ssl_verify_client on; ssl_protocols TLSv1.3;`
      : '';
  const connect =
    hop.kind === 'originate'
      ? `proxy_ssl_certificate ${hop.tls.chain}; proxy_ssl_certificate_key ${hop.tls.key}; proxy_ssl_trusted_certificate ${hop.tls.roots}; proxy_ssl_verify on; proxy_ssl_name mesh.test; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off;`
      : '';
  return `upstream app { server 127.0.0.1:${upstreamPort}; keepalive 1024; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${listenPort}${hop.kind === 'terminate' ? ' ssl' : ''} backlog=4096; ${accept}
    location / { proxy_pass ${hop.kind === 'originate' ? 'https' : 'http'}://app; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; proxy_request_buffering off; proxy_max_temp_file_size 0; ${connect} }
  }`;
}
