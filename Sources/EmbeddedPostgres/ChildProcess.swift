import Foundation
import Synchronization

/// How a process ended.
package enum ExitStatus: Sendable, Equatable, CustomStringConvertible {
  case exited(Int32)
  case signalled(Int32)

  init(waitStatus: Int32) {
    let signal = waitStatus & 0x7f
    self = signal == 0 ? .exited((waitStatus >> 8) & 0xff) : .signalled(signal)
  }

  package var description: String {
    switch self {
    case .exited(let code): "exit code \(code)"
    case .signalled(let signal): "signal \(signal)"
    }
  }
}

/// A process that we spawned and reap ourselves.
///
/// Not Foundation's `Process`: it learns of an exit through a socket that every descendant inherits, so a postmaster's
/// death would show only after its last backend's.
package final class ChildProcess: Sendable {
  package let pid: pid_t
  /// nil until the process has been reaped. Signals are sent under the same lock: before the reaping nobody else can
  /// have this process id.
  private let status = Mutex<ExitStatus?>(nil)

  /// Starts a program in a session of its own, so that a terminal's Ctrl-C does not reach it.
  ///
  /// - Parameters:
  ///   - arguments: the program, looked up in PATH unless it has a slash, and its arguments.
  ///   - directory: its working directory.
  ///   - input: a file descriptor for its standard input; /dev/null by default.
  ///   - output: a file that standard output and standard error are appended to.
  package init(_ arguments: [String], in directory: URL, input: Int32? = nil, output: URL) throws {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    if let input {
      posix_spawn_file_actions_adddup2(&actions, input, 0)
    } else {
      posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    }
    posix_spawn_file_actions_addopen(&actions, 1, output.path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    posix_spawn_file_actions_adddup2(&actions, 1, 2)
    for descriptor in Self.inheritableDescriptors() { posix_spawn_file_actions_addclose(&actions, descriptor) }

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    let newSession: Int32 = 0x80  // POSIX_SPAWN_SETSID, which the Glibc module does not show.
    let flags = newSession | Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
    posix_spawnattr_setflags(&attributes, Int16(flags))

    var pid: pid_t = 0
    // A program that runs as another user must not start in a directory that user cannot enter.
    let argv = CStrings(["env", "--chdir=\(directory.path)"] + arguments)
    let environment = CStrings(Self.environment())
    let code = posix_spawnp(&pid, "env", &actions, &attributes, argv.pointers, environment.pointers)
    guard code == 0 else { throw EmbeddedPostgresError.systemCall("spawning \(arguments[0])", errno: code) }
    self.pid = pid
  }

  package func signal(_ number: Int32) {
    status.withLock { if $0 == nil { _ = kill(pid, number) } }
  }

  /// Whether all its threads stand still, after SIGSTOP: each goes on until it next looks, and where processors are short
  /// that takes a while.
  package func isStopped() -> Bool {
    status.withLock { status in
      guard status == nil else { return false }
      var info = siginfo_t()
      // Left for whoever asks next (WNOWAIT).
      let options = WSTOPPED | WNOHANG | WNOWAIT
      return waitid(P_PID, id_t(pid), &info, options) == 0 && info.si_code == Int32(CLD_STOPPED)
    }
  }

  /// nil while the process is running.
  package func exitStatus() -> ExitStatus? {
    status.withLock { status in
      if let status { return status }
      var raw: Int32 = 0
      if waitpid(pid, &raw, WNOHANG) == pid { status = ExitStatus(waitStatus: raw) }
      return status
    }
  }

  /// nil if the process is still running after that time.
  package func waitForExit(within limit: Duration) async throws -> ExitStatus? {
    let deadline = ContinuousClock.now + limit
    while true {
      if let status = exitStatus() { return status }
      guard ContinuousClock.now < deadline else { return nil }
      try await Task.sleep(for: .milliseconds(2))
    }
  }

  /// A child that outlives us must not hold whatever somebody left open across exec, a test runner's pipe say. One that
  /// is closed meanwhile does no harm: glibc ignores that.
  private static func inheritableDescriptors() -> [Int32] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
    return names.compactMap { Int32($0) }.filter { $0 > 2 }
  }

  /// Ours, without libpq's variables: they would redirect PostgreSQL's tools, and PGPORT the server itself.
  private static func environment() -> [String] {
    ProcessInfo.processInfo.environment
      .filter { !$0.key.hasPrefix("PG") && $0.key != "LC_ALL" }
      .map { "\($0.key)=\($0.value)" } + ["LC_ALL=C"]
  }
}

/// A null-terminated array of C strings, as `argv` and `environ` are.
private final class CStrings {
  let pointers: [UnsafeMutablePointer<CChar>?]

  init(_ strings: [String]) { pointers = strings.map { strdup($0) } + [nil] }
  deinit { for pointer in pointers { free(pointer) } }
}

func describe(errno code: Int32) -> String { String(cString: strerror(code)) }
