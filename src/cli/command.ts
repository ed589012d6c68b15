/** What a command of `sluice` is, how its arguments are read, and its help, which is made of the same table. */
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { SluiceError } from '../errors.ts'
import { findNearest } from '../index.ts'

export interface Option {
  readonly type: 'string' | 'boolean'
  /** What stands for the value in the help. */
  readonly value?: string
  readonly text: string
  readonly multiple?: boolean
}

export interface Command {
  readonly name: string
  /** What comes behind the name. */
  readonly usage: string
  readonly about: string
  readonly examples: readonly string[]
  readonly options: Readonly<Record<string, Option>>
  /** Resolves to the exit code. */
  run(input: Input): Promise<number>
}

export interface Input {
  readonly words: readonly string[]
  readonly isJson: boolean
  has(option: string): boolean
  value(option: string): string | undefined
  values(option: string): readonly string[]
  /** A whole number, or the default. */
  count(option: string, min: number, max: number): number | undefined
}

const COMMON: Readonly<Record<string, Option>> = {
  json: { type: 'boolean', text: 'Print JSON.' },
  help: { type: 'boolean', text: 'Print this.' },
}

/** A mistake on the command line: it ends with exit code 2 and a pointer to the help. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Reads what follows the name of the command. */
export function readInput(command: Command, args: readonly string[]): Input {
  const options = { ...command.options, ...COMMON }
  const { values, positionals } = parse(command, options, args)
  const read = values as Record<string, string | boolean | string[] | undefined>
  const value = (option: string): string | undefined => read[option] as string | undefined
  return {
    words: positionals,
    isJson: read.json === true,
    has: (option) => read[option] === true,
    value,
    values: (option) => (read[option] as string[] | undefined) ?? [],
    count(option, min, max) {
      const given = value(option)
      if (given === undefined) return undefined
      if (/^\d{1,16}$/.test(given) && Number(given) >= min && Number(given) <= max) return Number(given)
      throw new UsageError(`--${option} is '${given}'; it must be a whole number from ${min} to ${max}.`)
    },
  }
}

function parse(
  command: Command,
  options: Readonly<Record<string, Option>>,
  args: readonly string[],
): ReturnType<typeof parseArgs> {
  const config: ParseArgsOptionsConfig = {}
  for (const [name, { type, multiple = false }] of Object.entries(options)) config[name] = { type, multiple }
  try {
    return parseArgs({ args: [...args], options: config, allowPositionals: true })
  } catch (error) {
    const unknown = /^Unknown option '(-[^']*)'/.exec((error as Error).message)?.[1]
    if (unknown === undefined) throw new UsageError((error as Error).message.split('. ')[0])
    const nearest = findNearest(unknown.replace(/^-+/, ''), Object.keys(options))
    throw new UsageError(
      `'${unknown}' is not an option of sluice ${command.name}.${nearest === null ? '' : ` Did you mean '--${nearest}'?`}`,
    )
  }
}

/** Whether the arguments ask for the help; it answers whatever else is wrong with them. */
export function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--')
  return (end < 0 ? args : args.slice(0, end)).some((arg) => arg === '--help' || arg === '-h')
}

export function helpOf({ name, usage, about, examples, options }: Command): string {
  const rows = Object.entries({ ...options, ...COMMON }).map(
    ([option, { value, text }]) => [`  --${option}${value === undefined ? '' : ` ${value}`}`, text] as const,
  )
  const width = Math.max(...rows.map(([left]) => left.length)) + 2
  const lines = rows.map(([left, text]) => `${left.padEnd(width)}${text}`)
  return `sluice ${name} ${usage}\n\n${about}\n\nOptions\n${lines.join('\n')}\n\nExamples\n${examples.map((line) => `  ${line}`).join('\n')}\n`
}

/** An error as a user of the command line gets to see it. */
export function describeError(error: unknown): {
  readonly code: string
  readonly message: string
  readonly details: object
} {
  if (error instanceof SluiceError) return { code: error.code, message: error.message, details: error.details }
  if (error instanceof UsageError) return { code: 'USAGE', message: error.message, details: {} }
  return { code: 'BUG', message: error instanceof Error ? (error.stack ?? error.message) : String(error), details: {} }
}
