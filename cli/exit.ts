/** Exit codes, and the error that carries one. */

export const EXIT = { fine: 0, problems: 1, usage: 2, unreachable: 3, interrupted: 130 } as const;

/** Ends a command with a message for people and an exit code. */
export class CommandError extends Error {
  readonly exitCode: number;
  constructor(message: string, exitCode: number = EXIT.problems) {
    super(message);
    this.name = 'CommandError';
    this.exitCode = exitCode;
  }
}
