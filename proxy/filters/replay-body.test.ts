import { expect, test } from '@jest/globals';
import { ReplayBody } from './replay-body.ts';
import { ProxyError } from '../errors.ts';
import type { Body, BodySink } from '../service.ts';

/** A body without a length, fed by hand. */
class Source implements Body {
  readonly length = undefined;
  readonly whole = undefined;
  sink!: BodySink;
  pipe(sink: BodySink): void {
    this.sink = sink;
  }
  pause(): void {}
  resume(): void {}
  cancel(): void {}
}

function collector(): { readonly sink: BodySink; readonly chunks: Buffer[]; ended: boolean } {
  const chunks: Buffer[] = [];
  const collected = {
    chunks,
    ended: false,
    sink: {
      data: (chunk: Buffer) => {
        chunks.push(chunk);
        return true;
      },
      end: () => void (collected.ended = true),
      fail: (error: ProxyError) => {
        throw error;
      },
    },
  };
  return collected;
}

test('what came byte by byte is kept joined, and comes again in order, large chunks between small ones too', () => {
  const source = new Source();
  const replay = new ReplayBody(source);
  const first = collector();
  const view = replay.view();
  view.pipe(first.sink);
  const sent: Buffer[] = [];
  const send = (chunk: Buffer): void => {
    sent.push(Buffer.from(chunk));
    source.sink.data(chunk);
  };
  for (let i = 0; i < 3_000; i++) send(Buffer.of(i & 0xff));
  send(Buffer.alloc(5_000, 'L'));
  for (let i = 0; i < 500; i++) send(Buffer.from(`<${i}>`));
  expect(replay.replayable).toBe(true);

  view.cancel(new ProxyError('upstreamReset'));
  const second = collector();
  replay.view().pipe(second.sink);
  // The second attempt begins while the body still comes.
  send(Buffer.from('tail'));
  source.sink.end(undefined);

  const whole = Buffer.concat(sent);
  expect(Buffer.concat(second.chunks).equals(whole)).toBe(true);
  expect(second.ended).toBe(true);
  // Small ones before the large one, the large one, small ones behind it, and what came afterwards.
  expect(second.chunks.length).toBe(4);
  // What the first attempt was given has not changed since.
  expect(Buffer.concat(first.chunks).equals(whole.subarray(0, whole.length - 4))).toBe(true);
});
