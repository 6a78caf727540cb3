import Foundation

extension Keyring {
  package static let environmentName = "MARTLET_SECRET_KEY"
  package static let fileLimitBytes = 64 * 1024

  /// The keys in a file, one a line, or those in the environment, separated by commas; none if there is neither.
  ///
  /// - Parameters:
  ///   - file: Lines that begin with `#` and empty ones mean nothing. Wins over the environment.
  ///   - warn: Told when others may read the file. Not refused, because secrets are mounted like that in containers.
  package static func load(
    file: String?,
    environment: [String: String] = ProcessInfo.processInfo.environment,
    warn: (String) -> Void
  ) throws(KeyringError) -> Keyring {
    if let file {
      let (text, isPublic) = try read(file)
      if isPublic { warn("the key file \(file) can be read by everybody on this host: chmod 600 \(file)") }
      let lines = text.split(whereSeparator: \.isNewline).map(Self.trimmed).filter { !$0.isEmpty && !$0.hasPrefix("#") }
      guard !lines.isEmpty else { throw KeyringError("there is no key in \(file); `martlet secret new-key` makes one") }
      do {
        return try Keyring(parsing: lines)
      } catch {
        throw KeyringError("\(file): \(error)")
      }
    }
    guard let text = environment[environmentName] else { return Keyring() }
    let keys = text.split(separator: ",").map(Self.trimmed).filter { !$0.isEmpty }
    // An empty variable is a mistake in a script more often than a wish, and secrets would then be stored in plain.
    guard !keys.isEmpty else {
      throw KeyringError("\(environmentName) is empty; unset it to store secrets in plain")
    }
    do {
      return try Keyring(parsing: keys)
    } catch {
      throw KeyringError("\(environmentName): \(error)")
    }
  }

  private static func read(_ file: String) throws(KeyringError) -> (text: String, isPublic: Bool) {
    guard let handle = FileHandle(forReadingAtPath: file) else {
      throw KeyringError("the key file \(file) cannot be read: does it exist, and may this user read it?")
    }
    defer { try? handle.close() }
    guard let bytes = try? handle.read(upToCount: fileLimitBytes + 1) ?? Data() else {
      throw KeyringError("the key file \(file) cannot be read")
    }
    guard bytes.count <= fileLimitBytes, let text = String(data: bytes, encoding: .utf8) else {
      throw KeyringError("\(file) is not a file of keys: it is too long, or not text")
    }
    let attributes = try? FileManager.default.attributesOfItem(atPath: (file as NSString).resolvingSymlinksInPath)
    let mode = (attributes?[.posixPermissions] as? NSNumber)?.intValue ?? 0
    return (text, mode & 0o004 != 0)
  }

  private static func trimmed(_ text: Substring) -> String { text.trimmingCharacters(in: .whitespacesAndNewlines) }
}
