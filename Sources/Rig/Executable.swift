import Foundation

/// The program that is running, to start more of it.
package enum Executable {
  package static func path() throws -> String {
    guard let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") else {
      throw RigError("the executable of this process cannot be found (/proc/self/exe), to start dispatchers with")
    }
    return program
  }
}
