/** Options of one verb, parsed by commander with our exit codes and without its habit of ending the process. */
import { Command, CommanderError } from 'commander';
import { CommandError, EXIT } from './exit.ts';

/** A commander command that throws instead of exiting; usage errors end with code 2, `--help` with 0. */
export function verb(name: string, description: string): Command {
  return new Command(`meshwork ${name}`)
    .description(description)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, `meshwork ${name}: `)) })
    .showSuggestionAfterError();
}

/** Parses the words after the verb. Throws `CommandError` (its text was printed already). */
export function parse(command: Command, argv: readonly string[]): Command {
  try {
    return command.parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) throw new CommandError('', error.exitCode === 0 ? EXIT.fine : EXIT.usage);
    throw error;
  }
}

/** A whole number option from `min` to `max`. */
export function integer(name: string, min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || text.trim() === '' || value < min || value > max) {
      throw new CommandError(`${name} must be a whole number from ${min} to ${max}, received "${text}"`, EXIT.usage);
    }
    return value;
  };
}

/** Collects a repeatable option. */
export function collect(value: string, previous: readonly string[]): string[] {
  return [...previous, value];
}
