import Foundation

struct ProcessError: Error {
  let command: String
  let output: String
}

/// A program run beside the tests. Nothing here blocks a thread of the cooperative pool, and output goes to a file: a
/// pipe would be inherited by whatever another test starts at the same moment, and so never end.
final class ChildProcess: Sendable {
  private let process = Process()
  private let ended: AsyncStream<Void>
  private let log: URL

  init(_ command: [String], log: URL) throws {
    self.log = log
    try Data().write(to: log)
    let (ended, continuation) = AsyncStream<Void>.makeStream()
    self.ended = ended
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = command
    process.standardInput = FileHandle.nullDevice
    let output = try FileHandle(forWritingTo: log)
    process.standardOutput = output
    process.standardError = output
    process.terminationHandler = { _ in continuation.finish() }
    try process.run()
    try output.close()
  }

  var isRunning: Bool { process.isRunning }
  var output: String { (try? String(contentsOf: log, encoding: .utf8)) ?? "" }

  func waitUntilExit() async -> Int32 {
    for await _ in ended {}
    return process.terminationStatus
  }

  func stop() async {
    // Swift's threads block signals and a child inherits that, so it would not hear of a SIGTERM.
    kill(process.processIdentifier, SIGKILL)
    _ = await waitUntilExit()
  }
}

func temporaryDirectory() throws -> URL {
  let directory = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
  return directory
}
