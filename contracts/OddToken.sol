// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A token that misbehaves on command, with 18 decimals: what a watcher must not believe.
contract OddToken {
    enum Mode {
        Honest,
        /// The transaction fails.
        Reverts,
        /// The event says that money moved; the balances did not.
        EventWithoutMovement,
        /// The money moves; no event says so.
        MovementWithoutEvent,
        /// `transfer` succeeds, answers false, and nothing moves.
        AnswersFalse
    }

    string public constant name = "Odd Token";
    string public constant symbol = "ODD";
    uint8 public constant decimals = 18;

    address public immutable owner;
    Mode public mode;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;

    event Transfer(address indexed from, address indexed to, uint256 value);

    constructor() {
        owner = msg.sender;
    }

    modifier onlyOwner() {
        require(msg.sender == owner, "only the owner");
        _;
    }

    function setMode(Mode next) external onlyOwner {
        mode = next;
    }

    function mint(address to, uint256 value) external onlyOwner {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        require(mode != Mode.Reverts, "odd");
        if (mode == Mode.AnswersFalse) {
            return false;
        }
        if (mode != Mode.EventWithoutMovement) {
            require(balanceOf[msg.sender] >= value, "balance is too small");
            balanceOf[msg.sender] -= value;
            balanceOf[to] += value;
        }
        if (mode != Mode.MovementWithoutEvent) {
            emit Transfer(msg.sender, to, value);
        }
        return true;
    }
}
