/// Something that parses bytes from outside, with what must hold whatever they are.
package struct FuzzTarget: Sendable {
  package let name: String
  /// Makes one input of the random numbers and looks at what becomes of it. Throws ``FuzzFinding``.
  /// - Returns: whether the input was accepted. A generator whose inputs are all refused at the door tests nothing behind it.
  package let check: @Sendable (inout FuzzRandom) throws -> Bool

  package static let all: [FuzzTarget] = [
    url, cidr, hostPattern, proxy, responseHead, retryAfter, header, signature, signingKey, sealedText,
    connectionString, eventBody,
    timeAndID, token, traceContext, eventType,
  ]
}

/// What did not hold, and of which input.
package struct FuzzFinding: Error, CustomStringConvertible {
  package let description: String

  init(_ what: String, _ input: some Any) {
    description = "\(what): \(String(reflecting: input).prefix(2000))"
  }
}

/// Throws unless the claim holds.
func require(_ holds: Bool, _ claim: @autoclosure () -> String, _ input: @autoclosure () -> some Any) throws {
  if !holds { throw FuzzFinding(claim(), input()) }
}
