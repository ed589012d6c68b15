/**
 * Records what a process and its children write to a folder, and when it is synced, with strace.
 *
 * What it is for: a crash of the machine cannot be had in a test, but what it may leave can be computed, if every write
 * and every sync of a real run is known. `record` runs a command and gives that; disk-model.ts makes the states of it.
 *
 *     const recording = await record({
 *       command: [process.execPath, 'child.ts', folder],
 *       watch: parentOfFolder,             // everything below it is modelled; a folder that the run makes lies in it
 *       isAck: (line) => line.startsWith('ack '),
 *     })
 *
 * An acknowledgement is a line that any of the processes writes to its standard output, in one write, as
 * `writeSync(1, …)` does; where a server acknowledges to a client, let the client run under the same command and print.
 *
 * The order is that of the system calls: each has the line where it began and the one where it ended. A sync makes
 * durable what had ended before it began. Not modelled, and refused where they touch the folder: memory maps that are
 * written, io_uring (`UV_USE_IO_URING=0` is set), sendfile and copy_file_range, renamed directories.
 *
 * strace is a package of every distribution. `findStrace` installs it on Debian where this is root; elsewhere it says
 * what is missing, and the caller should say so loudly: without it nothing of this is tested.
 */
import { spawn, spawnSync } from 'node:child_process'
import { createReadStream, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { parseCalls, type SystemCall } from './strace-lines.ts'

/** A change of a file's bytes; `inode` numbers files whatever their names are. */
export type DataOp =
  | {
      readonly kind: 'write'
      readonly inode: number
      readonly at: number
      readonly bytes: Uint8Array
      readonly start: number
      readonly end: number
      readonly isSynced: boolean
    }
  | {
      readonly kind: 'size'
      readonly inode: number
      readonly size: number
      readonly start: number
      readonly end: number
      readonly isSynced: boolean
    }

/** Names that come, go or change in one step. `inode` null: the name goes; -1: a directory. */
export interface NameOp {
  readonly kind: 'names'
  readonly changes: readonly { readonly path: string; readonly inode: number | null }[]
  readonly start: number
  readonly end: number
}

/** Makes durable what ended before it: of one file, of the names in one directory, or (both null) of everything. */
export interface SyncOp {
  readonly kind: 'sync'
  readonly inode: number | null
  readonly directory: string | null
  readonly start: number
  readonly end: number
}

export type DiskOp = DataOp | NameOp | SyncOp

export interface Recording {
  readonly watch: string
  /** What was there before, taken as durable. */
  readonly before: { readonly names: ReadonlyMap<string, number>; readonly contents: ReadonlyMap<number, Uint8Array> }
  readonly ops: readonly DiskOp[]
  /** Lines that `isAck` knew, each with the time at which its write began. */
  readonly acks: readonly { readonly line: string; readonly start: number }[]
  /** Everything lies below this time. */
  readonly end: number
  readonly exitCode: number | null
}

export interface RecordOptions {
  readonly command: readonly [string, ...string[]]
  readonly watch: string
  readonly isAck: (line: string) => boolean
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** More for strace, such as `--inject=fsync:error=EIO:when=30`. */
  readonly straceArgs?: readonly string[]
  /** Called with each acknowledgement while the command runs, for instance to kill it. */
  readonly onAck?: (line: string, kill: () => void) => void
}

const TRACED = [
  'open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,clone,clone3,fork,vfork,execve',
  'write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,mmap',
  'fsync,fdatasync,sync,syncfs,sync_file_range,msync',
  'unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir',
  'sendfile,copy_file_range,io_uring_setup',
].join(',')

/** Null where strace works; otherwise what is missing. */
export function findStrace(): string | null {
  const works = () => spawnSync('strace', ['-f', '-o', '/dev/null', 'true']).status === 0
  if (works()) return null
  if (
    process.getuid?.() === 0 &&
    existsSync('/etc/debian_version') &&
    spawnSync('strace', ['-V']).error !== undefined
  ) {
    console.error('# strace is missing: installing it with apt-get')
    spawnSync('apt-get', ['update'], { stdio: 'ignore' })
    spawnSync('apt-get', ['install', '-y', '--no-install-recommends', 'strace'], {
      stdio: 'ignore',
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
    if (works()) return null
  }
  return 'strace does not run here (missing, or tracing is not allowed): power loss is NOT tested. Install strace.'
}

export async function record(options: RecordOptions): Promise<Recording> {
  const { command, isAck, cwd = process.cwd(), env = process.env, straceArgs = [], onAck } = options
  const watch = resolve(options.watch)
  const before = snapshotOf(watch)
  const scratch = mkdtempSync(join(tmpdir(), 'sluice-strace-'))
  const trace = join(scratch, 'trace')
  try {
    const child = spawn(
      'strace',
      [
        '-f',
        '--seccomp-bpf',
        '-qq',
        '-xx',
        '-s',
        '67108864',
        '-e',
        'signal=none',
        '-e',
        `trace=${TRACED}`,
        ...straceArgs,
        '-o',
        trace,
        ...command,
      ],
      { cwd, env: { ...env, UV_USE_IO_URING: '0' }, stdio: ['ignore', 'pipe', 'inherit'] },
    )
    // What is traced is killed, and the tracer ends with it: killed itself, it would leave that running.
    const kill = () => {
      for (const pid of readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1').trim().split(' '))
        process.kill(Number(pid), 'SIGKILL')
    }
    for await (const line of createInterface(child.stdout)) {
      if (onAck !== undefined && isAck(line)) onAck(line, kill)
    }
    const exitCode =
      child.exitCode ?? (await new Promise<number | null>((done) => child.once('exit', (code) => done(code))))
    const calls = await parseCalls(createInterface(createReadStream(trace)))
    return { watch, before, exitCode, ...interpret(calls, watch, cwd, before, isAck) }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** All names below a folder, the folder among them, and the contents of the files. Two names of a file share a number. */
export function snapshotOf(folder: string): { names: Map<string, number>; contents: Map<number, Uint8Array> } {
  const names = new Map<string, number>([[folder, -1]])
  const contents = new Map<number, Uint8Array>()
  const numbers = new Map<number, number>()
  const visit = (parent: string) => {
    for (const entry of readdirSync(parent, { withFileTypes: true })) {
      const path = join(parent, entry.name)
      if (entry.isDirectory()) {
        names.set(path, -1)
        visit(path)
      } else if (entry.isFile()) {
        const { ino } = statSync(path)
        const number = numbers.get(ino) ?? numbers.size + 1
        numbers.set(ino, number)
        names.set(path, number)
        contents.set(number, readFileSync(path))
      }
    }
  }
  visit(folder)
  return { names, contents }
}

/** What an open file of a process refers to. `inode` 0: outside of what is watched. */
interface OpenFile {
  readonly inode: number
  /** Where it is a directory that is watched. */
  readonly directory: string | null
  readonly isAppending: boolean
  readonly isSynced: boolean
  readonly closesOnExec: boolean
  position: number
}

function interpret(
  calls: readonly SystemCall[],
  watch: string,
  cwd: string,
  before: Recording['before'],
  isAck: (line: string) => boolean,
): Pick<Recording, 'ops' | 'acks' | 'end'> {
  const names = new Map(before.names)
  const sizes = new Map([...before.contents].map(([inode, bytes]) => [inode, bytes.byteLength]))
  let inodes = Math.max(0, ...names.values())
  const ops: DiskOp[] = []
  const acks: { line: string; start: number }[] = []
  const tables = new Map<number, Map<number, OpenFile>>()
  const parents = new Map<number, { pid: number; shares: boolean }>()
  for (const { pid, name, args, result } of calls) {
    if (/^(clone3?|v?fork)$/.test(name) && result > 0)
      parents.set(result, { pid, shares: args.some((arg) => arg.includes('CLONE_FILES')) })
  }
  const tableOf = (pid: number): Map<number, OpenFile> => {
    let table = tables.get(pid)
    if (table === undefined) {
      const parent = parents.get(pid)
      const inherited = parent === undefined ? new Map<number, OpenFile>() : tableOf(parent.pid)
      table = parent?.shares === true ? inherited : new Map(inherited)
      tables.set(pid, table)
    }
    return table
  }
  const isWatched = (path: string) => path === watch || path.startsWith(`${watch}/`)
  const pathOf = (table: Map<number, OpenFile>, at: string, quoted: string): string => {
    const path = unquote(quoted).toString()
    if (path.startsWith('/') || at === 'AT_FDCWD') return resolve(cwd, path)
    return resolve(table.get(Number(at))?.directory ?? '/not-watched', path)
  }

  for (const call of calls) {
    const { pid, name, args, result, start, end } = call
    const table = tableOf(pid)
    const arg = (index: number) => args[index] ?? ''
    const file = table.get(Number(arg(0)))
    const refuse = (): never => {
      throw new Error(`the recorder does not model ${name}(${args.map((text) => text.slice(0, 80)).join(', ')})`)
    }
    const change = (...changes: { path: string; inode: number | null }[]) => {
      for (const { path, inode } of changes) {
        if (inode === null) names.delete(path)
        else names.set(path, inode)
      }
      if (changes.some(({ path }) => isWatched(path))) ops.push({ kind: 'names', changes, start, end })
    }
    const write = (target: OpenFile, bytes: Uint8Array, at: number) => {
      if (target.inode === 0 || bytes.byteLength === 0) return
      sizes.set(target.inode, Math.max(sizes.get(target.inode) ?? 0, at + bytes.byteLength))
      ops.push({ kind: 'write', inode: target.inode, at, bytes, start, end, isSynced: target.isSynced })
    }
    const resize = (target: OpenFile, size: number) => {
      if (target.inode === 0) return
      sizes.set(target.inode, size)
      ops.push({ kind: 'size', inode: target.inode, size, start, end, isSynced: target.isSynced })
    }
    // Calls that the kill cut off (their result is NaN) may have had their effect; only those that failed had none.
    if (result < 0) continue
    switch (name) {
      case 'open':
      case 'creat':
      case 'openat': {
        const path = name === 'openat' ? pathOf(table, arg(0), arg(1)) : pathOf(table, 'AT_FDCWD', arg(0))
        const flags = name === 'creat' ? 'O_CREAT|O_WRONLY|O_TRUNC' : arg(name === 'openat' ? 2 : 1)
        let inode = isWatched(path) ? names.get(path) : 0
        if (inode === undefined) {
          if (!flags.includes('O_CREAT')) break
          inode = ++inodes
          change({ path, inode })
          sizes.set(inode, 0)
        }
        const opened: OpenFile = {
          inode: Math.max(0, inode),
          directory: inode === -1 || (inode === 0 && flags.includes('O_DIRECTORY')) ? path : null,
          isAppending: flags.includes('O_APPEND'),
          isSynced: /O_D?SYNC/.test(flags),
          closesOnExec: flags.includes('O_CLOEXEC'),
          position: 0,
        }
        if (flags.includes('O_TRUNC') && (sizes.get(inode) ?? 0) > 0) resize(opened, 0)
        if (!Number.isNaN(result)) table.set(result, opened)
        break
      }
      case 'close':
        table.delete(Number(arg(0)))
        break
      case 'dup':
      case 'dup2':
      case 'dup3':
      case 'fcntl':
        if (name === 'fcntl' && !arg(1).startsWith('F_DUPFD')) break
        if (file === undefined) table.delete(result)
        else table.set(result, file)
        break
      case 'execve':
        for (const [fd, opened] of table) if (opened.closesOnExec) table.delete(fd)
        break
      case 'lseek':
        if (file !== undefined) file.position = result
        break
      case 'write':
      case 'writev': {
        const all = name === 'write' ? unquote(arg(1)) : Buffer.concat(quotedIn(arg(1)).map(unquote))
        const bytes = Number.isNaN(result) ? all : all.subarray(0, result)
        if (file === undefined) {
          if (arg(0) !== '1') break
          for (const line of bytes.toString().split('\n')) if (isAck(line)) acks.push({ line, start })
          break
        }
        const at = file.isAppending ? (sizes.get(file.inode) ?? 0) : file.position
        write(file, bytes, at)
        file.position = at + bytes.byteLength
        break
      }
      case 'pwrite64':
      case 'pwritev':
      case 'pwritev2': {
        if (file === undefined) break
        const all = name === 'pwrite64' ? unquote(arg(1)) : Buffer.concat(quotedIn(arg(1)).map(unquote))
        write(
          file,
          Number.isNaN(result) ? all : all.subarray(0, result),
          file.isAppending ? (sizes.get(file.inode) ?? 0) : Number(arg(3)),
        )
        break
      }
      case 'ftruncate':
        if (file !== undefined) resize(file, Number(arg(1)))
        break
      case 'truncate': {
        const inode = names.get(pathOf(table, 'AT_FDCWD', arg(0)))
        if (inode !== undefined)
          resize(
            { inode, directory: null, isAppending: false, isSynced: false, closesOnExec: false, position: 0 },
            Number(arg(1)),
          )
        break
      }
      case 'fallocate':
        if (file === undefined || file.inode === 0) break
        if (arg(1) !== '0') refuse()
        if (Number(arg(2)) + Number(arg(3)) > (sizes.get(file.inode) ?? 0))
          resize(file, Number(arg(2)) + Number(arg(3)))
        break
      case 'fsync':
      case 'fdatasync':
      case 'syncfs':
        if (file === undefined || (file.inode === 0 && file.directory === null) || Number.isNaN(result)) break
        if (name === 'syncfs') ops.push({ kind: 'sync', inode: null, directory: null, start, end })
        else
          ops.push({
            kind: 'sync',
            inode: file.directory === null ? file.inode : null,
            directory: file.directory,
            start,
            end,
          })
        break
      case 'sync':
        if (!Number.isNaN(result)) ops.push({ kind: 'sync', inode: null, directory: null, start, end })
        break
      case 'unlink':
      case 'unlinkat':
      case 'rmdir': {
        const path = name === 'unlinkat' ? pathOf(table, arg(0), arg(1)) : pathOf(table, 'AT_FDCWD', arg(0))
        if (isWatched(path)) change({ path, inode: null })
        break
      }
      case 'rename':
      case 'renameat':
      case 'renameat2':
      case 'link':
      case 'linkat': {
        const isAt = name.includes('at')
        const from = isAt ? pathOf(table, arg(0), arg(1)) : pathOf(table, 'AT_FDCWD', arg(0))
        const to = isAt ? pathOf(table, arg(2), arg(3)) : pathOf(table, 'AT_FDCWD', arg(1))
        if (!isWatched(from) && !isWatched(to)) break
        const inode = names.get(from)
        if (inode === undefined || inode < 1) refuse()
        else if (name.startsWith('link')) change({ path: to, inode })
        // Two names of one file: the system does nothing.
        else if (names.get(to) !== inode) change({ path: from, inode: null }, { path: to, inode })
        break
      }
      case 'mkdir':
      case 'mkdirat': {
        const path = name === 'mkdirat' ? pathOf(table, arg(0), arg(1)) : pathOf(table, 'AT_FDCWD', arg(0))
        if (isWatched(path)) change({ path, inode: -1 })
        break
      }
      case 'mmap': {
        const mapped = table.get(Number(arg(4)))
        if (mapped !== undefined && mapped.inode > 0 && arg(2).includes('PROT_WRITE') && arg(3).includes('MAP_SHARED'))
          refuse()
        break
      }
      case 'sendfile':
        if (file !== undefined && file.inode > 0) refuse()
        break
      case 'copy_file_range':
        if ((table.get(Number(arg(2)))?.inode ?? 0) > 0) refuse()
        break
      case 'symlink':
      case 'symlinkat':
        if (isWatched(pathOf(table, name === 'symlink' ? 'AT_FDCWD' : arg(1), arg(args.length - 1)))) refuse()
        break
      case 'io_uring_setup':
        // libuv has a ring for epoll, too; the one for files polls.
        if (arg(1).includes('IORING_SETUP_SQPOLL')) refuse()
    }
  }
  return {
    ops,
    acks,
    end: Math.max(0, ...calls.map((call) => (Number.isFinite(call.end) ? call.end : call.start))) + 1,
  }
}

/** The bytes of a string as strace -xx prints it. */
function unquote(quoted: string): Buffer {
  const body = quoted.slice(quoted.indexOf('"') + 1, quoted.lastIndexOf('"'))
  return Buffer.from(body.replaceAll('\\x', ''), 'hex')
}

function quotedIn(text: string): string[] {
  return text.match(/"[^"]*"/g) ?? []
}
