import Foundation

/// Secrets come from files or standard input: what stands on a command line is shown to everybody by `ps`.
enum SecretInput {
  static let limitBytes = 64 * 1024

  /// Reads a file (`-`: standard input). `name` is what it holds, for messages.
  static func read(_ file: String, _ name: String) throws -> String {
    if file == "-" { return try readStandardInput(name) }
    guard let handle = FileHandle(forReadingAtPath: file) else {
      throw CommandFailure("The file \(file) with the \(name) cannot be read. Does it exist, and may you read it?")
    }
    defer { try? handle.close() }
    return try text(handle, name)
  }

  /// One line, without its end: a file written by `echo` ends with a line break that is not part of a password.
  static func readLine(_ file: String, _ name: String) throws -> String {
    let text = try read(file, name)
    // A password may be empty, then there is a line at least: an empty file is a mistake.
    guard !text.isEmpty || (file == "-" && isatty(STDIN_FILENO) != 0) else {
      throw CommandFailure("The \(name) is missing: there is nothing to read.")
    }
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    guard lines.count <= 2, lines.count < 2 || lines[1].isEmpty else {
      throw CommandFailure("The \(name) must be one line.")
    }
    return String(lines.first ?? "").trimmingSuffix("\r")
  }

  private static func readStandardInput(_ name: String) throws -> String {
    if isatty(STDIN_FILENO) != 0 {
      guard let typed = getpass("The \(name): ") else { throw CommandFailure("Nothing was typed.") }
      return String(cString: typed)
    }
    return try text(FileHandle.standardInput, name)
  }

  private static func text(_ handle: FileHandle, _ name: String) throws -> String {
    let bytes = try handle.read(upToCount: limitBytes + 1) ?? Data()
    guard bytes.count <= limitBytes else { throw CommandFailure("The \(name) is longer than \(limitBytes) bytes.") }
    guard let text = String(data: bytes, encoding: .utf8) else {
      throw CommandFailure("The \(name) is not UTF-8 text.")
    }
    return text
  }
}

extension String {
  fileprivate func trimmingSuffix(_ suffix: String) -> String {
    hasSuffix(suffix) ? String(dropLast(suffix.count)) : self
  }
}
