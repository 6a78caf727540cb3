// A process for the tests to kill: starts a server in the directory given, says so, and waits to be killed.

import EmbeddedPostgres
import Foundation

let parent = URL(fileURLWithPath: CommandLine.arguments[1])
let server = try await EmbeddedPostgres.start(.init(directory: parent))
// One write, newline last, so that a reader who sees the newline has the whole line.
FileHandle.standardOutput.write(Data("\(server.pid ?? 0) \(server.directory.path)\n".utf8))
try await Task.sleep(for: .seconds(600))
try await server.stop()
