/** Holds a request until its whole body is there, up to a bound (envoy.extensions.filters.http.buffer.v3). */
import { ProxyError } from '../errors.ts';
import { wholeBody } from '../http1/body.ts';
import type { ConfigReader } from './config.ts';
import type { FilterEntry } from './filter.ts';
import type { Filter, ProxyRequest } from '../service.ts';

export const buffer: FilterEntry = {
  type: 'envoy.extensions.filters.http.buffer.v3.Buffer',
  names: ['envoy.filters.http.buffer', 'envoy.buffer'],
  build: buildBuffer,
  routeTypes: ['envoy.extensions.filters.http.buffer.v3.BufferPerRoute'],
  buildForRoute: (config) => {
    if (config.boolean('disabled')) return undefined;
    return buildBuffer(config.object('buffer') ?? config.fail('', 'must have disabled or buffer'));
  },
};

function buildBuffer(config: ConfigReader): Filter {
  const bytesMax = config.number('maxRequestBytes', 0);
  if (!(bytesMax > 0)) config.fail('maxRequestBytes', 'must be more than 0');
  return (next) => (request) => {
    const body = request.body;
    if (body === undefined || request.upgrade !== undefined) return next(request);
    const length = body.whole?.length ?? body.length;
    if (length !== undefined && length > bytesMax) return Promise.reject(tooLarge(bytesMax));
    if (body.whole !== undefined) return next(request);
    return gather(request, bytesMax).then(() => next(request));
  };
}

/** Reads the body into one piece in place of the stream. Trailers of a buffered request are not kept. */
function gather(request: ProxyRequest, bytesMax: number): Promise<void> {
  const body = request.body!;
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    let over = false;
    const finish = (error?: ProxyError): void => {
      if (over) return;
      over = true;
      request.abort = undefined;
      if (error === undefined) {
        request.body = wholeBody(Buffer.concat(chunks));
        resolve();
      } else reject(error);
    };
    request.abort = (error) => {
      body.cancel(error);
      finish(error);
    };
    body.pipe({
      data: (chunk) => {
        bytes += chunk.length;
        if (bytes > bytesMax) {
          const error = tooLarge(bytesMax);
          if (!over) body.cancel(error);
          finish(error);
        } else chunks.push(chunk);
        return true;
      },
      end: () => finish(),
      fail: (error) => finish(error),
    });
  });
}

function tooLarge(bytesMax: number): ProxyError {
  return new ProxyError('payloadTooLarge', `At most ${bytesMax} bytes are taken.`);
}
