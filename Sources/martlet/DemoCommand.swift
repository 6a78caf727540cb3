import ArgumentParser
import Demo
import Foundation
import UnixSignals

struct DemoCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "demo",
    abstract: "Show everything at once, on a throwaway PostgreSQL of its own. Takes half a minute.",
    discussion: """
      An example application publishes events in its own transactions and rolls some back; endpoints fail, hang, refuse \
      and are down; one of two dispatchers is killed in the middle. At the end the application's, the receivers' and the \
      database's records are compared. Needs PostgreSQL's programs (MARTLET_PG_BIN says where), and no database.

      Exit status: 0 the records agree; 1 they do not, or it could not be run; 130 interrupted.
      """
  )

  @Option(
    help: ArgumentHelp(
      "Publish the events of this file: JSON Lines of {\"type\", \"key\", \"payload\"}. Default: a sample set.",
      valueName: "file"
    )
  )
  var events: String?
  @Option(help: "How many events to publish; a shorter file is gone through again.") var count = 1000
  @Option(help: "Makes faults and rollbacks the same as in another run. Default: random.") var seed: UInt64?
  @Flag(help: "Leave PostgreSQL running at the end, to look around, until Enter is pressed.") var keep = false

  func validate() throws {
    guard (20...10_000).contains(count) else { throw ValidationError("--count must be 20 to 10000.") }
  }

  func run() async throws {
    let demo = Demonstration(
      Demonstration.Options(
        eventFile: events,
        count: count,
        seed: seed ?? UInt64.random(in: 0..<1_000_000),
        waitForEnter: keep ? Self.waitForEnter : nil
      )
    )
    // Trapped, so that an interrupted demo still cleans up after itself before it ends.
    let signals = await UnixSignalsSequence(trapping: .sigint, .sigterm, .sighup)
    let end: End = try await withThrowingTaskGroup(of: End.self) { group in
      group.addTask { .finished(agrees: try await demo.run()) }
      group.addTask {
        for await _ in signals { break }
        return .interrupted
      }
      defer { group.cancelAll() }
      return try await group.next() ?? .interrupted
    }
    switch end {
    case .finished(agrees: true): return
    case .finished(agrees: false): throw ExitCode.failure
    case .interrupted:
      "interrupted; everything is stopped and removed".printToStandardError()
      throw ExitCode(130)
    }
  }

  private enum End {
    case finished(agrees: Bool)
    case interrupted
  }

  @Sendable private static func waitForEnter() async {
    // A thread of its own, since reading blocks; should we be interrupted instead, it is left behind.
    let (lines, feed) = AsyncStream.makeStream(of: Void.self)
    Thread.detachNewThread {
      _ = FileHandle.standardInput.availableData
      feed.finish()
    }
    for await _ in lines {}
  }
}
