/**
 * `sluice <command>`: finds the command, loads it and nothing else, runs it, and says what went wrong.
 * Exit codes: 0 done, 1 it failed, 2 the command line is wrong.
 */
import { readFileSync } from 'node:fs'
import { ERRORS, SluiceError } from '../errors.ts'
import { findNearest } from '../index.ts'
import { escapeControls } from '../server/log-text.ts'
import { asksForHelp, describeError, helpOf, readInput, UsageError } from './command.ts'
import { COMMANDS } from './commands.ts'

// `sluice queues | head` closes the pipe early, which is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

export async function main([name, ...args]: readonly string[]): Promise<number> {
  try {
    if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
      process.stdout.write(overview())
      return name === undefined ? 2 : 0
    }
    if (name === '--version') {
      process.stdout.write(`${version()}\n`)
      return 0
    }
    const listed = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
    if (listed === undefined) throw unknownCommand(name)
    const command = await listed.load()
    if (asksForHelp(args)) {
      process.stdout.write(helpOf(command))
      return 0
    }
    return await command.run(readInput(command, args))
  } catch (error) {
    report(error, name, args.includes('--json'))
    return error instanceof UsageError ? 2 : 1
  }
}

function overview(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length)) + 2
  const lines = Object.entries(COMMANDS).map(([name, { about }]) => `  sluice ${name.padEnd(width)}${about}`)
  return `sluice <command> [options]\n\nDurable queues and topics in a folder, in process or over HTTP.\n\nCommands\n${lines.join('\n')}\n\nsluice <command> --help says more; sluice --version prints the version.\n`
}

function unknownCommand(name: string): UsageError {
  const nearest = findNearest(name, Object.keys(COMMANDS))
  return new UsageError(
    `'${name}' is not a command.${nearest === null ? '' : ` Did you mean '${nearest}'?`} There are: ${Object.keys(COMMANDS).join(', ')}.`,
  )
}

/** The error and what to do about it, on standard error, so that what is piped on stays clean. */
function report(error: unknown, name: string | undefined, isJson: boolean): void {
  const described = describeError(error)
  if (isJson) {
    process.stderr.write(`${JSON.stringify(described)}\n`)
    return
  }
  const { code } = described
  // What a server or a worker said may hold anything; a stack of ours has lines.
  const message = error instanceof SluiceError ? escapeControls(described.message) : described.message
  const help = name !== undefined && Object.hasOwn(COMMANDS, name) ? `sluice ${name} --help` : 'sluice --help'
  const advice =
    error instanceof SluiceError
      ? ERRORS[error.code].solve
      : error instanceof UsageError
        ? `Try: ${help}`
        : 'This is a mistake in Sluice, not yours.'
  // Of some errors the message says it all.
  const isSaid = message.includes(advice) || advice.startsWith('The message')
  process.stderr.write(`sluice: ${code}: ${message}\n${isSaid ? '' : `${advice}\n`}`)
}

function version(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string
  }
  return version
}
