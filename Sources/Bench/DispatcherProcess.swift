import EmbeddedPostgres
import Foundation

/// A dispatcher as an operator runs it: a process of its own, so that its processor time and memory are its own.
struct DispatcherProcess {
  struct Options {
    var synchronousCommit = false
    /// Asked instead of the host's.
    var nameServer: SilentNameServer?
    /// How long a shutdown waits for what is in flight; nil: the dispatcher's default.
    var graceSeconds: Int?
    /// Deliveries in flight at most; nil: the dispatcher's default.
    var maxInFlight: Int?

    var commitMode: String { synchronousCommit ? "synchronous" : "asynchronous (the dispatcher's default)" }
  }

  let process: ChildProcess
  private let launcher: ChildLauncher

  static func start(_ database: BenchDatabase, _ options: Options = Options(), launcher: ChildLauncher) async throws
    -> DispatcherProcess
  {
    let executable = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    var arguments = [
      executable, "dispatch", "--database-url", database.connectionString, "--name", "bench", "--allow-http",
      "--allow-network", "127.0.0.0/8", "--reconcile-every", "0", "--log-level", "warning",
    ]
    if options.synchronousCommit { arguments.append("--synchronous-commit") }
    if let grace = options.graceSeconds { arguments += ["--grace", "\(grace)"] }
    if let maxInFlight = options.maxInFlight { arguments += ["--max-in-flight", "\(maxInFlight)"] }
    arguments = (options.nameServer?.prefix ?? []) + arguments
    return DispatcherProcess(process: try await launcher.launch(arguments, log: "dispatcher.log"), launcher: launcher)
  }

  var cpuSeconds: Double { ProcessUsage.treeSeconds(of: process.pid) }
  var peakBytes: Int { ProcessUsage.peakBytes(of: process.pid) ?? 0 }
  var residentBytes: Int { ProcessUsage.residentBytes(of: process.pid) ?? 0 }

  var threads: Int { ProcessUsage.threads(of: process.pid) ?? 0 }

  /// Throws if it has ended by itself.
  func check() async throws {
    if let status = process.exitStatus() {
      throw BenchError("the dispatcher ended (\(status)): \(await launcher.output("dispatcher.log"))")
    }
  }

  func stop() async throws {
    process.signal(SIGTERM)
    if try await process.waitForExit(within: .seconds(30)) == nil {
      process.signal(SIGKILL)
      throw BenchError("the dispatcher did not stop within 30 s: \(await launcher.output("dispatcher.log"))")
    }
  }
}
