/** A program: attacks an xDS port in one way until it is ended. */
import { ATTACKS, Attacker } from './hostile-attacks.ts';
import type { AttackKind, AttackTarget } from './hostile-attacks.ts';

process.on('uncaughtException', (error) => process.stderr.write(`the attacker itself failed: ${error.stack ?? error.message}\n`));
process.once('disconnect', () => process.exit(0));
process.once('message', ({ kind, target }: { kind: AttackKind; target: AttackTarget }) => {
  const attacker = new Attacker(target);
  void ATTACKS[kind](attacker);
  process.send!(attacker.did);
  setInterval(() => process.send!(attacker.did), 100);
});
