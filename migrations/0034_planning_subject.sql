-- Numbers of planning are changed by two officers, too. A migration of its own, because a new value of an enum
-- cannot be used in the transaction that adds it.
alter type proposal_subject add value 'planning';
