-- How far each node has come: a number that goes up with every commit that it waits for, and that it keeps in a file too. A
-- database that is behind its nodes' files was brought back from an older copy, and lacks what came since.
CREATE TABLE node (
    name TEXT PRIMARY KEY,
    mark INTEGER NOT NULL
) STRICT;
