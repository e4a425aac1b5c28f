#!/usr/bin/env node
/** The command line's door: finds the verb, loads only its file, and turns every failure into one readable line and an exit code. */
import { enableCompileCache, flushCompileCache } from 'node:module';
import { COMMANDS, describeCommands, nearestCommand } from './commands.ts';
import { CommandError, EXIT } from './exit.ts';
import { VERSION } from './version.ts';

/** Runs one verb. Answers its exit code: 0 fine, 1 problems found, 2 usage, 3 control plane not reachable. */
export async function main(argv: readonly string[]): Promise<number> {
  const [verb, ...rest] = argv;
  if (verb === undefined || verb === 'help' || verb === '--help' || verb === '-h') {
    process.stdout.write(describeCommands());
    return verb === undefined ? EXIT.usage : EXIT.fine;
  }
  if (verb === '--version' || verb === 'version') {
    process.stdout.write(`meshwork ${VERSION} (node ${process.versions.node})\n`);
    return EXIT.fine;
  }
  const command = Object.hasOwn(COMMANDS, verb) ? COMMANDS[verb as keyof typeof COMMANDS] : undefined;
  if (command === undefined) {
    const near = nearestCommand(verb);
    process.stderr.write(
      `meshwork: there is no command "${verb}"${near === undefined ? '' : `; did you mean "${near}"?`}\nmeshwork help lists them.\n`,
    );
    return EXIT.usage;
  }
  try {
    const { run } = await command.load();
    // Written now and not at the end: the next process that starts has it, however long this one runs.
    flushCompileCache();
    return await run(rest);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    process.stderr.write(error.message === '' ? '' : `meshwork ${verb}: ${error.message}\n`);
    return error.exitCode;
  }
}

// Compiled code of the files that are loaded from here on is kept between runs.
enableCompileCache();

// Started by another program of ours with a channel (the demo): when that one is gone, this one goes too.
if (process.channel !== undefined) {
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.channel?.unref();
}

// A verb that is done is done: a timer that some part forgot must not hold the process, its exit code and who waits for it.
process.exit(await main(process.argv.slice(2)));
