/** Bodies: what is held, what flows, who hears of the end. */
import { expect, test } from '@jest/globals';
import { Socket } from 'node:net';
import { ProxyError } from '../errors.ts';
import type { BodySink } from '../service.ts';
import { FlowingBody, TextBody, isWhole, wholeBody } from './body.ts';

/** A source and a sink that write down what they are told. */
function bench(): { body: FlowingBody; sink: BodySink & { room: boolean }; log: string[] } {
  const log: string[] = [];
  const body = new FlowingBody(
    {
      socket: new Socket(),
      bodyWanted: () => log.push('wanted'),
      holdReading: () => log.push('hold'),
      resumeReading: () => log.push('read on'),
      bodyCancelled: () => log.push('cancelled'),
    },
    undefined,
  );
  const sink = {
    room: true,
    data(chunk: Buffer): boolean {
      log.push(`data ${chunk.toString()}`);
      return sink.room;
    },
    end: (): void => void log.push('end'),
    fail: (error: ProxyError): void => void log.push(`fail ${error.code}`),
  };
  return { body, sink, log };
}

test('what comes before the reader is held, and the socket with it', () => {
  const { body, sink, log } = bench();

  body.push(Buffer.from('a'));
  body.push(Buffer.from('b'));
  body.end(undefined);
  expect(log).toEqual(['hold']);
  body.pipe(sink);

  expect(log).toEqual(['hold', 'wanted', 'data a', 'data b', 'end', 'read on']);
});

test('a full sink holds the socket until it has room', () => {
  const { body, sink, log } = bench();
  body.pipe(sink);
  sink.room = false;

  body.push(Buffer.from('a'));
  body.push(Buffer.from('b'));
  expect(log).toEqual(['wanted', 'data a', 'hold']);
  sink.room = true;
  body.resume();

  expect(log).toEqual(['wanted', 'data a', 'hold', 'data b', 'read on']);
});

test('a failure before the reader came is told when it comes, and nothing follows it', () => {
  const { body, sink, log } = bench();
  body.push(Buffer.from('a'));

  body.fail(new ProxyError('upstreamBodyReset'));
  body.pipe(sink);
  body.push(Buffer.from('b'));
  body.end(undefined);

  expect(log).toEqual(['hold', 'wanted', 'fail upstreamBodyReset']);
});

test('after a cancel neither side hears more', () => {
  const { body, sink, log } = bench();
  body.pipe(sink);

  body.cancel(new ProxyError('downstreamReset'));
  body.push(Buffer.from('a'));
  body.end(undefined);
  body.fail(new ProxyError('upstreamBodyReset'));

  expect(log).toEqual(['wanted', 'cancelled']);
});

test('a body of text is whole without a buffer, and a buffer for those who ask', () => {
  const body = new TextBody('h\xe9');

  expect(isWhole(body)).toBe(true);
  expect(body.length).toBe(2);
  expect(body.whole).toEqual(Buffer.from([0x68, 0xe9]));
  expect(body.whole).toBe(body.whole);
});

test.each([
  ['text', new TextBody('ab')],
  ['bytes', wholeBody(Buffer.from('ab'))],
])('a whole body of %s can be piped', (_name, body) => {
  const { sink, log } = bench();

  body.pipe(sink);

  expect(log).toEqual(['data ab', 'end']);
});
